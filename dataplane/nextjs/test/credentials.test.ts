import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";

import { Credentials, secretsManagerReader, type Aws } from "../src/credentials.js";
import { isDataPlaneError } from "../src/errors.js";

const ARN = "arn:aws:secretsmanager:eu-central-1:1:secret:a";
const A = { placement: "p-a", role: "arn:role", secret: ARN };
const OTHER = { ...A, placement: "p-b", secret: "arn:other" };

function setting() {
  const vault = { text: JSON.stringify({ username: "a", password: "secret-one" }), reads: 0, down: false };
  const clock = { now: 0 };
  const credentials = new Credentials(
    async () => {
      vault.reads += 1;
      await Promise.resolve();
      if (vault.down) throw new Error("down");
      return vault.text;
    },
    () => clock.now,
  );
  return { vault, clock, credentials };
}

const unavailable = (error: unknown) => isDataPlaneError(error) && error.code === "credential-unavailable";

test("many who ask at once cause one read, and later ones none", async () => {
  const { vault, credentials } = setting();
  await Promise.all(Array.from({ length: 100 }, () => credentials.login(A)));
  await credentials.login(A);
  assert.equal(vault.reads, 1);
});

test("a known login is used on while the vault is down, an unknown one is an honest 503", async () => {
  const { vault, clock, credentials } = setting();
  await credentials.login(A);
  vault.down = true;
  credentials.expire(ARN);
  for (let i = 0; i < 5; i += 1) assert.equal((await credentials.login(A)).username, "a");
  assert.equal(vault.reads, 2, "asked once in a while, not by every request");
  clock.now += 2_000;
  assert.equal((await credentials.login(A)).username, "a");
  assert.equal(vault.reads, 3);
  await assert.rejects(credentials.login(OTHER), unavailable);
});

test("a refused login is read anew, once in a while", async () => {
  const { vault, clock, credentials } = setting();
  const first = await credentials.login(A);
  vault.text = JSON.stringify({ username: "b", password: "secret-two" });
  const second = await credentials.afterRefusal(A, first);
  assert.equal(second.username, "b");
  assert.equal(await credentials.afterRefusal(A, first), second, "somebody has read it meanwhile");
  assert.equal(await credentials.afterRefusal(A, second), second);
  assert.equal(vault.reads, 2);
  clock.now += 2_000;
  assert.equal(await credentials.afterRefusal(A, second), second, "the vault holds no other");
  assert.equal(vault.reads, 3);
});

test("a rotation invalidation has the login read anew", async () => {
  const { vault, credentials } = setting();
  await credentials.login(A);
  vault.text = JSON.stringify({ username: "b", password: "secret-two" });
  credentials.expire(ARN);
  assert.equal((await credentials.login(A)).username, "b");
});

test("no rendering of a login or of what went wrong shows the password", async () => {
  const { vault, credentials } = setting();
  const login = await credentials.login(A);
  assert.ok(!`${inspect(login, { showHidden: true, depth: 9 })}${JSON.stringify(login)}`.includes("secret-one"));
  vault.text = 'not JSON, but "secret-three"';
  await assert.rejects(credentials.login(OTHER), (error) => {
    assert.ok(unavailable(error));
    return !inspect(error, { showHidden: true, depth: 9 }).includes("secret-three");
  });
});

/** AWS, which opens to a session what bears its tag. `throttles`: it does. */
function cloud() {
  const aws = { assumed: [] as string[], read: 0, throttles: false, ended: new Set<string>() };
  const clock = { now: 0 };
  const named = (name: string) => Object.assign(new Error(name), { name });
  const calls: Aws = {
    async assume(role, placement) {
      aws.assumed.push(`${role} ${placement}`);
      await Promise.resolve();
      if (aws.throttles) throw named("ThrottlingException");
      return { accessKeyId: placement, secretAccessKey: "s", sessionToken: `${placement} ${aws.assumed.length}` };
    },
    async read(keys, secret) {
      aws.read += 1;
      await Promise.resolve();
      if (aws.ended.has(keys.sessionToken)) throw named("ExpiredTokenException");
      if (!secret.includes(`${keys.accessKeyId}:`)) throw named("AccessDeniedException");
      return secret;
    },
  };
  return { aws, clock, read: secretsManagerReader(calls, () => clock.now, () => 1) };
}

const of = (placement: string, secret = `secret:${placement}:`) => ({ placement, role: "arn:role", secret });

test("a secret is read as a session of its role with its placement's tag", async () => {
  const { aws, read } = cloud();
  assert.equal(await read(of("p-a")), "secret:p-a:");
  assert.deepEqual(aws.assumed, ["arn:role p-a"]);
  await assert.rejects(read(of("p-a", "secret:p-b:")), { name: "AccessDeniedException" });
});

test("a session is used again until shortly before its end, or until AWS ends it", async () => {
  const { aws, clock, read } = cloud();
  await read(of("p-a"));
  clock.now += 839_000;
  await read(of("p-a"));
  assert.equal(aws.assumed.length, 1);
  clock.now += 1_000;
  await read(of("p-a"));
  assert.equal(aws.assumed.length, 2);
  aws.ended.add("p-a 2");
  await read(of("p-a"));
  assert.equal(aws.assumed.length, 3);
});

test("where AWS throttles nobody asks for a while that grows", async () => {
  const { aws, clock, read } = cloud();
  await read(of("p-a"));
  aws.throttles = true;
  const throttled = (seconds: number) => (error: unknown) => (error as { retryAfter?: number }).retryAfter === seconds;
  for (const seconds of [1, 2, 4, 8, 16, 30, 30]) {
    const before = aws.assumed.length;
    await assert.rejects(read(of(`t-b-${clock.now}`)), throttled(seconds));
    await assert.rejects(read(of(`t-c-${clock.now}`)), throttled(seconds), "of any tenant");
    assert.equal(aws.assumed.length, before + 1);
    clock.now += seconds * 1000;
  }
  const credentials = new Credentials(read);
  await assert.rejects(credentials.login(of("p-d")), (error) => unavailable(error) && throttled(30)(error));
  clock.now += 30_000;
  aws.throttles = false;
  await read(of("p-b"));
  await read(of("p-c"));
});
