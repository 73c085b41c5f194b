/** Signs entries as the control plane does; the package itself has no function that can. */

import { createHmac } from "node:crypto";

import type { ConfigKeys } from "../src/tenant-config.js";

export const SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/p-aaaaaaaaaaaa/app-AbCdEf";
export const ROLE = "arn:aws:iam::123456789012:role/c-aaaaaaaaaaaa";

const KEY = Buffer.alloc(32, 7);
export const KEYS: ConfigKeys = new Map([["k1", KEY]]);

export function payloadOf(host: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    v: 2,
    host,
    tenant_id: "t-aaaaaaaaaaaa",
    slug: "acme",
    status: "active",
    epoch: 10,
    plan: "team",
    pool_size: 2,
    dedicated: false,
    release: "0001",
    placement: "p-aaaaaaaaaaaa",
    database: { host: "db.example", port: 5432, name: "p_aaaaaaaaaaaa", secret: SECRET, role: ROLE },
    profile: {},
    issued_at: 1_800_000_000,
    not_after: 253_402_300_799,
    ...changes,
  };
}

export function entryOf(host: string, changes: Record<string, unknown> = {}): string {
  const body = Buffer.from(JSON.stringify(payloadOf(host, changes)));
  const mac = createHmac("sha256", KEY).update(`v2-hmac-sha256\nk1\n${host}\n`).update(body).digest();
  return `v2-hmac-sha256.k1.${body.toString("base64url")}.${mac.toString("base64url")}`;
}
