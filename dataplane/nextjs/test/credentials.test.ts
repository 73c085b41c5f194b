import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";

import { Credentials } from "../src/credentials.js";
import { isDataPlaneError } from "../src/errors.js";

const ARN = "arn:aws:secretsmanager:eu-central-1:1:secret:a";

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
  await Promise.all(Array.from({ length: 100 }, () => credentials.login(ARN)));
  await credentials.login(ARN);
  assert.equal(vault.reads, 1);
});

test("a known login is used on while the vault is down, an unknown one is an honest 503", async () => {
  const { vault, clock, credentials } = setting();
  await credentials.login(ARN);
  vault.down = true;
  credentials.expire(ARN);
  for (let i = 0; i < 5; i += 1) assert.equal((await credentials.login(ARN)).username, "a");
  assert.equal(vault.reads, 2, "asked once in a while, not by every request");
  clock.now += 2_000;
  assert.equal((await credentials.login(ARN)).username, "a");
  assert.equal(vault.reads, 3);
  await assert.rejects(credentials.login("arn:other"), unavailable);
});

test("a refused login is read anew, once in a while", async () => {
  const { vault, clock, credentials } = setting();
  const first = await credentials.login(ARN);
  vault.text = JSON.stringify({ username: "b", password: "secret-two" });
  const second = await credentials.afterRefusal(ARN, first);
  assert.equal(second.username, "b");
  assert.equal(await credentials.afterRefusal(ARN, first), second, "somebody has read it meanwhile");
  assert.equal(await credentials.afterRefusal(ARN, second), second);
  assert.equal(vault.reads, 2);
  clock.now += 2_000;
  assert.equal(await credentials.afterRefusal(ARN, second), second, "the vault holds no other");
  assert.equal(vault.reads, 3);
});

test("a rotation invalidation has the login read anew", async () => {
  const { vault, credentials } = setting();
  await credentials.login(ARN);
  vault.text = JSON.stringify({ username: "b", password: "secret-two" });
  credentials.expire(ARN);
  assert.equal((await credentials.login(ARN)).username, "b");
});

test("no rendering of a login or of what went wrong shows the password", async () => {
  const { vault, credentials } = setting();
  const login = await credentials.login(ARN);
  assert.ok(!`${inspect(login, { showHidden: true, depth: 9 })}${JSON.stringify(login)}`.includes("secret-one"));
  vault.text = 'not JSON, but "secret-three"';
  await assert.rejects(credentials.login("arn:other"), (error) => {
    assert.ok(unavailable(error));
    return !inspect(error, { showHidden: true, depth: 9 }).includes("secret-three");
  });
});
