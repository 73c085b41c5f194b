/** Signs entries as the control plane does; the package itself has no function that can. */

import { createHmac } from "node:crypto";

import type { ConfigKeys } from "../src/tenant-config.js";

const KEY = Buffer.alloc(32, 7);
export const KEYS: ConfigKeys = new Map([["k1", KEY]]);

export function payloadOf(host: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    v: 1,
    host,
    tenant_id: "t-aaaaaaaaaaaa",
    slug: "acme",
    status: "active",
    epoch: 10,
    plan: "team",
    pool_size: 2,
    dedicated: false,
    release: "0001",
    database: { host: "db.example", port: 5432, name: "t_aaaaaaaaaaaa_1", secret: "arn:secret:a" },
    profile: {},
    ...changes,
  };
}

export function entryOf(host: string, changes: Record<string, unknown> = {}): string {
  const body = Buffer.from(JSON.stringify(payloadOf(host, changes)));
  const mac = createHmac("sha256", KEY).update(`v1\nk1\n${host}\n`).update(body).digest();
  return `v1.k1.${body.toString("base64url")}.${mac.toString("base64url")}`;
}
