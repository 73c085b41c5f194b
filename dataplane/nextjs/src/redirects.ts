/**
 * Where a request is sent whose tenant has moved to another host: to the same path and query there. The same
 * function as in `dataplane/redirects.py`, with the same cases (`tests/vectors/redirects.json`).
 *
 * The host is the signed entry's. Nothing that a visitor sends can stand in its place: scheme, host and port
 * come first and end at the path's slash. The port is the one that the visitor asked for. The scheme is https
 * where the server or X-Forwarded-Proto says so: whoever was led from https to http would send a form in the
 * clear, and who forges the header leads nobody but himself.
 */

const SECURE: Readonly<Record<string, string>> = { http: "https", ws: "wss" };
const DEFAULT_PORTS: readonly number[] = [0, 80, 443];

export interface Asked {
  /** By which the server was asked: http, https, ws or wss. */
  readonly scheme: string;
  /** The header that `normaliseHost` took. */
  readonly rawHost: string;
  /** Path and query as they were sent. */
  readonly target: string;
  readonly forwardedProto?: string | null;
}

/** `to`: the host of a TenantConfig that is `moved`. */
export function locationOf(to: string, { scheme, rawHost, target, forwardedProto }: Asked): string {
  const known = forwardedProto?.toLowerCase().includes("https") ? (SECURE[scheme] ?? scheme) : scheme;
  const port = Number(rawHost.split(":")[1] ?? 0);
  const at = DEFAULT_PORTS.includes(port) ? to : `${to}:${port}`;
  const path = target.replace(/[^!-~]/g, escaped);
  return `${known}://${at}${path.startsWith("/") ? "" : "/"}${path}`;
}

/** Node hands the bytes of a request on as Latin-1. */
function escaped(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}
