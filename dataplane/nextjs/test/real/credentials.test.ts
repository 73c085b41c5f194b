/**
 * Logins as the SDK reads them, against an emulated AWS that holds sessions to their policies. TEST_AWS is JSON:
 * placements of one cluster, each with its `role`, `secret` and the `username` that this holds. The process runs
 * as the application's task role.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";

import { secretsManagerReader, type SecretAddress } from "../../src/credentials.js";

const given = JSON.parse(process.env["TEST_AWS"] ?? "null") as (SecretAddress & { readonly username: string })[] | null;
assert.ok(given, "TEST_AWS: expected placements");
const denied = { name: "AccessDeniedException" };

test("many tenants at once are each read as themselves, by one client", async () => {
  const read = secretsManagerReader();
  const found = await Promise.all(given.map((address) => read(address)));
  const names = found.map((text) => (JSON.parse(text) as { username: string }).username);
  assert.deepEqual(names, given.map(({ username }) => username));
});

test("code that mixes tenants is refused by AWS", async () => {
  const [mine, other] = given;
  assert.ok(mine && other);
  const read = secretsManagerReader();
  await assert.rejects(read({ ...mine, secret: other.secret }), denied);
  await assert.rejects(read({ ...mine, placement: other.placement }), denied);
  await read(mine);
});

test("the process itself reads nothing", async () => {
  const own = new SecretsManagerClient({ maxAttempts: 1 });
  await assert.rejects(own.send(new GetSecretValueCommand({ SecretId: given[0]!.secret })), denied);
});
