/**
 * Short texts that only our own proxies can have made: values under a signature, for two uses.
 *
 * *The pass.* The proxy tells the code behind it for which host it let the request in. A client can't
 * make one, so a request that went around the proxy has none, and it lasts minutes, so that one
 * which leaks is soon worth nothing. It also brings the host through the requests that Next.js sends
 * to itself: after a server action's `redirect()` it fetches the next page from its own address, with
 * the visitor's headers except for Host, which `fetch` may not set.
 *
 * *The segment.* Next.js keeps whole pages (ISR) by path alone, not by host, so the tenant must be in
 * the path: the proxy rewrites `/board` to `/t/<segment>/board`. A page that gets a segment knows that a
 * proxy made it, so neither a request around the proxy nor a wrong matcher can ask for somebody
 * else's page. It names the tenant besides the host, so a domain that changes hands starts with an
 * empty cache.
 */

import { createHmac, timingSafeEqual } from "node:crypto";

import type { ConfigKeys, TenantConfig } from "./tenant-config.js";

const PASS_SECONDS = 300;
const MAX_LENGTH = 512;

export function passFor(host: string, keys: ConfigKeys, nowSeconds: number): string {
  return seal("pass", [host, String(Math.ceil(nowSeconds) + PASS_SECONDS)], keys);
}

/** The host of a pass that is ours and not over, else null. */
export function hostOfPass(pass: string | null, keys: ConfigKeys, nowSeconds: number): string | null {
  const [host, until] = unseal("pass", pass ?? "", keys) ?? [];
  return host !== undefined && Number(until) > nowSeconds ? host : null;
}

export function segmentOf(config: TenantConfig, keys: ConfigKeys): string {
  return seal("segment", [config.host, config.tenant_id], keys);
}

/** Host and tenant of a segment that is ours, else null. */
export function readSegment(
  segment: string,
  keys: ConfigKeys,
): { readonly host: string; readonly tenantId: string } | null {
  const [host, tenantId] = unseal("segment", segment, keys) ?? [];
  return host === undefined || tenantId === undefined ? null : { host, tenantId };
}

/** `~` stands in no host, id or number, and needs no escape in a path. The first key signs. */
function seal(use: string, values: readonly string[], keys: ConfigKeys): string {
  for (const key of keys.values()) return [...values, mac(key, use, values).toString("base64url")].join("~");
  throw new Error("expected at least one configuration key");
}

function unseal(use: string, text: string, keys: ConfigKeys): readonly string[] | null {
  if (text.length > MAX_LENGTH) return null;
  const values = text.split("~");
  const given = Buffer.from(values.pop() ?? "", "base64url");
  for (const key of keys.values()) {
    const expected = mac(key, use, values);
    if (given.length === expected.length && timingSafeEqual(given, expected)) return values;
  }
  return null;
}

/** 128 bits. The first words keep it apart from every other use of the key. */
function mac(key: Uint8Array, use: string, values: readonly string[]): Buffer {
  return createHmac("sha256", key)
    .update(`nextjs ${use}\n${values.join("\n")}`)
    .digest()
    .subarray(0, 16);
}
