/**
 * The first code that a request meets: host → tenant, states answered, headers set.
 *
 * For Next.js 16 as `proxy.ts`, for 15.5 and later as `middleware.ts` with `runtime: "nodejs"`; both on
 * the Node runtime, since the Edge runtime has no TCP and so no Redis. See docs/nextjs.md.
 *
 * What code behind the proxy may rely on: every `x-tenant-*` header of the client's is gone,
 * `x-tenant-entry` holds the entry that the control plane signed, and `x-tenant-pass` the host, signed by
 * this proxy. `tenant()` verifies both, so that a request which went around the proxy, through a wrong
 * matcher or a hole in the framework, is refused instead of believed.
 */

import { NextResponse, type NextRequest } from "next/server.js";

import type { TenantConfig } from "./tenant-config.js";
import { DataPlaneError, errorResponse, isDataPlaneError, WORDING, type ErrorCode } from "./errors.js";
import { normaliseHost } from "./hosts.js";
import { locationOf } from "./redirects.js";
import type { Releases } from "./releases.js";
import type { Resolved } from "./resolve.js";
import { ENTRY_HEADER, PASS_HEADER, rawHostOf, runtime, type Runtime } from "./runtime.js";
import { hostOfPass, passFor, segmentOf } from "./seal.js";

/** Page paths of the application for the answers that a person may see, e.g. `{ suspended: "/state/suspended" }`. */
export type StatePages = Partial<Record<ErrorCode, string>>;

export interface TenantProxyOptions {
  /** Shown with the right status; a plain built-in page where none is named. */
  readonly pages?: StatePages;
  /**
   * Paths (with everything below them) whose whole pages Next.js may cache: rewritten to
   * `<cacheRoot>/<segment><path>`, so that each tenant has a cache entry of its own.
   */
  readonly cached?: readonly string[];
  /** The folder of those pages, `app/t/[tenant]` unless said otherwise. Closed to requests from outside. */
  readonly cacheRoot?: string;
  /**
   * Wait for the database (a paused one as long as DATAPLANE_WAKE_SECONDS says) before the page is rendered:
   * then the answer is an honest 503 with `Retry-After`, which a page that has begun to stream can't give.
   */
  readonly wake?: boolean;
}

const DEFAULTS = { pages: {}, cached: [], cacheRoot: "/t", wake: true } as const;
const RETRY_SECONDS = 5;

/** `export const proxy = createTenantProxy({...})`: Next.js calls it with each request that its matcher takes. */
export function createTenantProxy(options: TenantProxyOptions = {}): (request: NextRequest) => Promise<NextResponse> {
  const settled = { ...DEFAULTS, ...options };
  return async (request) => {
    const headers = withoutTenantHeaders(request.headers);
    try {
      return await admit(request, headers, settled, runtime());
    } catch (error) {
      if (!isDataPlaneError(error)) throw error;
      return refuse(request, headers, error, settled.pages);
    }
  };
}

async function admit(
  request: NextRequest,
  headers: Headers,
  options: Required<TenantProxyOptions>,
  { settings, resolver, databases }: Runtime,
): Promise<NextResponse> {
  const now = Date.now() / 1000;
  const passed = hostOfPass(request.headers.get(PASS_HEADER), settings.keys, now);
  const raw = passed ?? rawHostOf(request.headers, settings);
  const host = passed ?? normaliseHost(raw);
  const { pathname } = request.nextUrl;
  if (settings.zones.classify(host).kind === "platform" || isWithin(pathname, options.cacheRoot)) {
    throw new DataPlaneError("unknown-host", "host: no tenant can have it");
  }
  const resolved = await resolver.resolve(host);
  if (resolved !== null && resolved.config.moved_to !== null) return lead(request, resolved.config.moved_to, raw);
  const { config, entry } = serving(resolved, settings.releases);
  if (options.wake) await databases.ready(config);

  headers.set(ENTRY_HEADER, entry);
  headers.set(PASS_HEADER, passFor(host, settings.keys, now));
  headers.set("x-tenant-id", config.tenant_id);
  headers.set("x-tenant-slug", config.slug);
  if (!options.cached.some((path) => isWithin(pathname, path))) return NextResponse.next({ request: { headers } });
  const target = request.nextUrl.clone();
  target.pathname = `${options.cacheRoot}/${segmentOf(config, settings.keys)}${pathname}`;
  return NextResponse.rewrite(target, { request: { headers } });
}

function serving(resolved: Resolved | null, releases: Releases): Resolved {
  const status: TenantConfig["status"] = resolved?.config.status ?? "gone";
  if (resolved === null || status === "gone") throw new DataPlaneError("unknown-host", "host: no tenant lives here");
  if (status === "suspended") throw new DataPlaneError("suspended", "tenant: suspended");
  if (status === "provisioning") {
    throw new DataPlaneError("provisioning", "tenant: being set up", { retryAfter: RETRY_SECONDS });
  }
  if (!releases.serve(resolved.config.release)) {
    const message = `tenant: of release ${resolved.config.release}, which is not served here`;
    throw new DataPlaneError("being-updated", message, { retryAfter: RETRY_SECONDS });
  }
  return resolved;
}

/**
 * 308 keeps method and body. It is never to be stored: browsers would keep it for ever, while the tenant may take
 * the old name back, or give it up for good.
 */
function lead(request: NextRequest, to: string, rawHost: string): NextResponse {
  const { protocol, pathname, search } = new URL(request.url);
  const Location = locationOf(to, {
    scheme: protocol.slice(0, -1),
    rawHost,
    target: pathname + search,
    forwardedProto: request.headers.get("x-forwarded-proto"),
  });
  return new NextResponse(null, { status: 308, headers: { Location, "Cache-Control": "no-store" } });
}

/**
 * A page for who reads, which comes back by itself where waiting helps; JSON for who does not. Never kept by
 * any cache, whatever the page itself allows.
 */
function refuse(request: NextRequest, headers: Headers, error: DataPlaneError, pages: StatePages): NextResponse {
  const answer = errorResponse(error);
  const page = pages[error.code];
  const reads = request.method === "GET" || request.method === "HEAD";
  const init = { status: error.status, headers: new Headers(answer.headers) };
  init.headers.delete("Content-Type");
  const retry = init.headers.get("Retry-After");
  if (reads && retry !== null) init.headers.set("Refresh", retry);
  if (page !== undefined && reads) {
    const target = request.nextUrl.clone();
    target.pathname = page;
    target.search = "";
    return NextResponse.rewrite(target, { ...init, request: { headers } });
  }
  if (reads && request.headers.get("accept")?.includes("text/html")) {
    const { title, explanation } = WORDING[error.code];
    init.headers.set("Content-Type", "text/html; charset=utf-8");
    return new NextResponse(`<!doctype html><title>${title}</title><h1>${title}</h1><p>${explanation}</p>\n`, init);
  }
  init.headers.set("Content-Type", "application/json");
  return new NextResponse(answer.body, init);
}

function withoutTenantHeaders(sent: Headers): Headers {
  const headers = new Headers(sent);
  for (const name of sent.keys()) if (name.startsWith("x-tenant-")) headers.delete(name);
  return headers;
}

function isWithin(pathname: string, path: string): boolean {
  return pathname === path || pathname.startsWith(path.endsWith("/") ? path : `${path}/`);
}
