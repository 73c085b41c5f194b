/**
 * Caches whose entries belong to one tenant.
 *
 * Next.js keys what it caches by function, arguments, path or URL, and by nothing that says whose data
 * it is: two tenants that ask alike get one entry. These helpers put the tenant into every key, and
 * into the tags, so that invalidating A's notes leaves B's alone.
 */

import { unstable_cache } from "next/cache.js";

import type { Tenant } from "./server.js";

export interface TenantCacheOptions {
  /** Seconds; false keeps the entry until one of its tags is invalidated. */
  readonly revalidate?: number | false;
  /** Names within the tenant, e.g. ["notes"]; invalidate by `revalidateTag(tenantTag(tenant, "notes"))`. */
  readonly tags?: readonly string[];
}

/** A cache key that no two tenants share. JSON, so that no two lists of parts share one either. */
export function cacheKey(tenant: Tenant, ...parts: readonly string[]): string {
  return JSON.stringify([tenant.id, tenant.host, ...parts]);
}

/** A tag of this tenant alone. At most 256 characters, which is where Next.js stops reading one. */
export function tenantTag(tenant: Tenant, name: string): string {
  const tag = `${tenant.id}:${name}`;
  if (tag.length > 256) throw new RangeError("tenantTag: expected a name that keeps the tag within 256 characters");
  return tag;
}

/**
 * `unstable_cache` with the tenant in its key. `name` says what is cached; `args` are part of the key
 * as well and must survive JSON. Inside of `work` there is no request: use `db(tenant)`.
 */
export function tenantCache<A extends unknown[], R>(
  tenant: Tenant,
  name: string,
  work: (...args: A) => Promise<R>,
  options: TenantCacheOptions = {},
): (...args: A) => Promise<R> {
  return unstable_cache(work, [cacheKey(tenant, name)], {
    tags: (options.tags ?? []).map((tag) => tenantTag(tenant, tag)),
    ...(options.revalidate !== undefined && { revalidate: options.revalidate }),
  });
}

/**
 * A GET whose answer is cached for this tenant alone: Next.js' own cache of `fetch` is keyed by the
 * request, which two tenants may have in common. Status, content type and text are kept.
 */
export async function tenantFetch(
  tenant: Tenant,
  url: string | URL,
  init: { readonly headers?: Record<string, string> } & TenantCacheOptions = {},
): Promise<Response> {
  const load = async (address: string, sent: Record<string, string>) => {
    const response = await fetch(address, { headers: sent, cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status} from ${new URL(address).host}`); // never cached
    return { status: response.status, type: response.headers.get("Content-Type"), text: await response.text() };
  };
  const { status, type, text } = await tenantCache(tenant, "fetch", load, init)(String(url), init.headers ?? {});
  return new Response(text, { status, headers: type === null ? {} : { "Content-Type": type } });
}
