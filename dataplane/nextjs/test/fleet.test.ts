import assert from "node:assert/strict";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";

import { FleetBudget } from "../src/fleet.js";

const CLUSTER = "c.example:5432";

/** Takes connections, and answers each command with what `answer` says, or never. */
async function redisThat(t: TestContext, answer: string | null) {
  const commands: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("data", (data) => {
      for (const [, word = ""] of data.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const name = word.toLowerCase();
        commands.push(name);
        if (name !== "eval") socket.write("+OK\r\n");
        else if (answer !== null) socket.write(answer);
      }
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`, commands };
}

function member(t: TestContext, url: string, limit = 8, share?: number) {
  const warnings: string[] = [];
  const budget = new FleetBudget(url, {
    limit,
    ...(share !== undefined && { share }),
    warn: (message) => warnings.push(message),
  });
  t.after(() => budget.close());
  return { budget, warnings };
}

async function granted(budget: FleetBudget, times: number): Promise<boolean[]> {
  const answers: boolean[] = [];
  for (let i = 0; i < times; i += 1) answers.push(await budget.acquire(CLUSTER));
  return answers;
}

test("with Redis away each process has its share, and says so", async (t) => {
  const { budget, warnings } = member(t, "redis://127.0.0.1:1", 12);
  assert.deepEqual(await granted(budget, 4), [true, true, true, false], "a quarter");
  await budget.release(CLUSTER);
  assert.deepEqual([budget.held(CLUSTER), await budget.acquire(CLUSTER)], [2, true]);
  assert.ok(warnings.length > 0);
  assert.ok(warnings.every((warning) => warning.startsWith("fleet budget: ")));
});

test("a Redis that hangs costs its timeout once, not once a request", async (t) => {
  const { url, commands } = await redisThat(t, null);
  const { budget } = member(t, url, 8, 3);
  const began = performance.now();
  const answers = await Promise.all(Array.from({ length: 20 }, () => budget.acquire(CLUSTER)));
  assert.ok(performance.now() - began < 900, `${performance.now() - began} ms`);
  assert.equal(answers.filter(Boolean).length, 3);
  assert.equal(commands.filter((name) => name === "eval").length, 1);
});

test("a Redis that is loading, or refuses, counts as away", async (t) => {
  const { url } = await redisThat(t, "-LOADING Redis is loading the dataset in memory\r\n");
  const { budget } = member(t, url, 8, 1);
  assert.deepEqual(await granted(budget, 2), [true, false]);
});

test("no is an answer", async (t) => {
  const { url } = await redisThat(t, ":0\r\n");
  const { budget } = member(t, url);
  assert.deepEqual([await budget.acquire(CLUSTER), budget.held(CLUSTER)], [false, 0]);
});

test("a limit of nothing is refused", () => {
  assert.throws(
    () => new FleetBudget("redis://127.0.0.1:1", { limit: 0, warn: () => undefined }),
    /limit: expected at least 1, got 0/,
  );
});
