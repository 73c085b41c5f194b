import assert from "node:assert/strict";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";

import { ControlPlaneTier } from "../src/control.js";

const HOST = "acme.tenants.example.com";

async function answering(t: TestContext, answer: (response: ServerResponse) => void) {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    answer(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { asked, tier: new ControlPlaneTier(`http://127.0.0.1:${port}/`, "token") };
}

const json = (status: number, body: unknown) => (response: ServerResponse) =>
  void response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));

test("an entry is asked for by host, with the token", async (t) => {
  const { asked, tier } = await answering(t, json(200, { entry: "v2-hmac-sha256.k1.a.b" }));
  assert.equal(await tier.entry(HOST), "v2-hmac-sha256.k1.a.b");
  assert.deepEqual(asked, [`GET /v1/resolve?host=${HOST} Bearer token`]);
});

test("only the control plane's own word means that there is none", async (t) => {
  const own = [
    json(404, { error: { code: "unknown_host", message: "none" } }),
    json(400, { error: { code: "invalid", field: "host", message: "localhost" } }),
  ];
  for (const answer of own) assert.equal(await (await answering(t, answer)).tier.entry(HOST), null);
  const others: [number, unknown][] = [
    [404, { error: { code: "no_such_url", message: "a wrong base URL" } }],
    [404, { error: "unknown_host" }],
    [404, { code: "unknown_host" }],
    [404, null],
    [400, { error: { code: "invalid", field: "page" } }],
    [500, { error: { code: "unknown_host" } }],
  ];
  for (const [status, body] of others) {
    const { tier } = await answering(t, json(status, body));
    await assert.rejects(tier.entry(HOST), new RegExp(`answered ${status}`), JSON.stringify(body));
  }
  const html = JSON.stringify({ error: { code: "unknown_host" } });
  const page = await answering(t, (response) => void response.writeHead(404, { "Content-Type": "text/html" }).end(html));
  await assert.rejects(page.tier.entry(HOST), /answered 404/);
});

test("anything else is no answer", async (t) => {
  for (const answer of [json(500, {}), json(401, {}), json(200, {}), json(200, { entry: 7 }), json(200, null)]) {
    const { tier } = await answering(t, answer);
    await assert.rejects(tier.entry(HOST));
  }
  const moved = await answering(t, (response) => void response.writeHead(302, { Location: "http://127.0.0.1:1/" }).end());
  await assert.rejects(moved.tier.entry(HOST));
  const endless = await answering(t, json(200, { entry: "x".repeat(100_000) }));
  await assert.rejects(endless.tier.entry(HOST), /at most/);
});

test("silence ends after two seconds", async (t) => {
  const { tier } = await answering(t, () => undefined);
  const began = performance.now();
  await assert.rejects(tier.entry(HOST));
  assert.ok(performance.now() - began < 4_000);
});
