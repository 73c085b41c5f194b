/**
 * The path segment under which Next.js keeps a tenant's whole pages (ISR).
 *
 * Next.js keys such a page by its path alone, not by host, so the tenant must be in the path. The
 * proxy rewrites `/board` to `/t/<segment>/board`; the segment names the host and the tenant and is
 * signed, so a page that gets one knows that a proxy made it: neither a request that goes around the
 * proxy nor a wrong matcher can ask for somebody else's page. It holds the tenant's id as well as the
 * host, so a domain that changes hands starts with an empty cache.
 */

import { createHmac, timingSafeEqual } from "node:crypto";

import type { ConfigKeys, TenantConfig } from "./contract.js";

const SEGMENT = /^([a-z0-9.-]{1,253})~([a-z0-9-]{1,64})~([A-Za-z0-9_-]{22})$/;

export function segmentOf(config: TenantConfig, keys: ConfigKeys): string {
  for (const key of keys.values()) {
    return `${config.host}~${config.tenant_id}~${mac(key, config.host, config.tenant_id).toString("base64url")}`;
  }
  throw new Error("expected at least one configuration key");
}

/** Host and tenant of a segment that one of our proxies made, else null. */
export function readSegment(
  segment: string,
  keys: ConfigKeys,
): { readonly host: string; readonly tenantId: string } | null {
  const [, host, tenantId, signature] = SEGMENT.exec(segment) ?? [];
  if (host === undefined || tenantId === undefined || signature === undefined) return null;
  const given = Buffer.from(signature, "base64url");
  for (const key of keys.values()) {
    if (timingSafeEqual(given, mac(key, host, tenantId))) return { host, tenantId };
  }
  return null;
}

/** 128 bits. The first word keeps it apart from every other use of the key. */
function mac(key: Uint8Array, host: string, tenantId: string): Buffer {
  return createHmac("sha256", key).update(`segment\n${host}\n${tenantId}`).digest().subarray(0, 16);
}
