/**
 * From a raw Host header to the name that routing is looked up by: pure functions, no I/O, the same
 * rules as `dataplane/hosts.py` and the same cases (`tests/vectors/hosts.json`).
 *
 * The Host header is written by whoever sends the request, so the rule is narrow and has one result:
 * two spellings of a host give the same name or an error, and what is not a host name (an address, a
 * list of two, a path, a control character) is never looked up at all. `X-Forwarded-Host` is
 * believed only where the operator has said how many proxies of his own stand in front.
 */

import { domainToASCII, domainToUnicode } from "node:url";

import { DataPlaneError } from "./errors.js";

const MAX_HOST = 253; // octets of a name in text form, RFC 1035
const MAX_RAW = 1024; // longer than any name in Unicode with a port

const NAME = /^(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*$/;
const CHARSET = /^[a-z0-9.-]+$/;
const PORT = /^[0-9]{1,5}$/;
const NUMBER = /^(?:[0-9]+|0x[0-9a-f]*)$/;
const SLUG = /^[a-z](?:[a-z0-9]|-(?!-)){1,28}[a-z0-9]$/;
const ASCII = /^[\x00-\x7f]*$/;
/** IDNA 2008's LetterDigits (RFC 5892, 2.1); WHATWG's own domainToASCII takes emoji as well. */
const IDNA_LABEL = /^(?!-)[\p{Ll}\p{Lo}\p{Lm}\p{Mn}\p{Mc}\p{Nd}-]+(?<!-)$/u;

/** Labels in a platform zone that no tenant can have: the control plane's own list, held to the vectors. */
export const RESERVED: ReadonlySet<string> = new Set([
  "abuse", "account", "accounts", "admin", "administrator", "analytics", "api", "app", "apps", "assets", "auth",
  "autoconfig", "autodiscover", "backup", "beta", "billing", "blog", "calendar", "cdn", "checkout", "cname",
  "console", "contact", "control", "dashboard", "database", "demo", "dev", "developer", "developers", "dns",
  "docs", "download", "email", "example", "files", "ftp", "gateway", "git", "graphql", "health", "healthz",
  "help", "host", "hosting", "hostmaster", "http", "https", "images", "imap", "img", "internal", "invalid",
  "invoice", "invoices", "isatap", "jobs", "kb", "legal", "links", "live", "local", "localhost", "login",
  "logout", "mail", "manage", "media", "metrics", "monitor", "mta-sts", "mx", "news", "noc", "null", "oauth",
  "ops", "origin", "password", "pay", "payment", "payments", "ping", "pop", "pop3", "portal", "postmaster",
  "preview", "private", "prod", "production", "proxy", "public", "redirect", "register", "registry", "root",
  "saml", "sandbox", "secure", "security", "server", "signin", "signup", "site", "smtp", "sso", "staff",
  "staging", "static", "stats", "status", "stripe", "subdomain", "support", "sysadmin", "system", "tenant",
  "tenants", "test", "tools", "undefined", "upload", "uploads", "vpn", "webhook", "webhooks", "webmail",
  "webmaster", "whois", "wpad", "www", "xmpp",
]);

export type BadHostReason = "empty" | "duplicate" | "port" | "ip" | "length" | "charset" | "label" | "idn";

/** The Host header names no host that could be a tenant's: 404 for an IP address, else 400. */
export class BadHost extends DataPlaneError {
  constructor(
    readonly reason: BadHostReason,
    message: string,
  ) {
    super("bad-host", `host: ${message}`, { status: reason === "ip" ? 404 : 400 });
  }
}

/**
 * The lookup name of a raw Host header: lower case, A-labels, no port, no trailing dot. Idempotent.
 * @throws BadHost with `reason`; `dataplane/hosts.py` has the table of reasons.
 */
export function normaliseHost(raw: string): string {
  if (raw === "") throw new BadHost("empty", "expected a host name, got nothing");
  if (raw.length > MAX_RAW) throw new BadHost("length", `expected at most ${MAX_HOST} octets`);
  if (raw.includes(",")) throw new BadHost("duplicate", "expected one value, got several");
  if (raw.startsWith("[")) throw new BadHost("ip", "an IPv6 address is never a tenant's host");
  let name = withoutPort(raw);
  name = ASCII.test(name) ? name.toLowerCase() : toAscii(name);
  if (name.endsWith(".")) name = name.slice(0, -1);
  if (name.length > MAX_HOST) {
    throw new BadHost("length", `expected at most ${MAX_HOST} octets, got ${name.length}`);
  }
  if (!NAME.test(name)) {
    if (name === "" || CHARSET.test(name)) {
      throw new BadHost("label", "expected labels of 1 to 63 octets without a hyphen at their edges");
    }
    throw new BadHost("charset", "expected letters, digits, hyphens and dots");
  }
  if (NUMBER.test(name.slice(name.lastIndexOf(".") + 1))) {
    throw new BadHost("ip", "an IPv4 address is never a tenant's host");
  }
  return name;
}

function withoutPort(raw: string): string {
  const colon = raw.indexOf(":");
  if (colon === -1) return raw;
  const port = raw.slice(colon + 1);
  if (port.includes(":")) throw new BadHost("ip", "an IPv6 address is never a tenant's host");
  if (!PORT.test(port) || Number(port) > 65535) {
    throw new BadHost("port", "expected a port from 0 to 65535 after the colon");
  }
  if (colon === 0) throw new BadHost("empty", "expected a host name before the port");
  return raw.slice(0, colon);
}

function toAscii(name: string): string {
  const ascii = domainToASCII(name);
  const labels = domainToUnicode(ascii).replace(/\.$/, "").split(".");
  if (ascii === "" || !labels.every((label) => IDNA_LABEL.test(label))) {
    throw new BadHost("idn", "expected an internationalised name that IDNA 2008 allows");
  }
  return ascii;
}

/**
 * Which header value counts: the Host, or with `trustedProxies` = n > 0 the n-th value from the right
 * of X-Forwarded-Host, which the outermost proxy of one's own wrote. Node hands header bytes on as
 * Latin-1; a non-ASCII value is read as the UTF-8 that clients send.
 */
export function rawHost(host: string | null, forwardedHost: string | null = null, trustedProxies = 0): string {
  let chosen = host ?? "";
  if (trustedProxies > 0 && forwardedHost) {
    const value = forwardedHost.split(",").at(-trustedProxies);
    if (value !== undefined) chosen = value.replace(/^[ \t]+|[ \t]+$/g, "");
  }
  if (ASCII.test(chosen)) return chosen;
  try {
    if (/[^\x00-\xff]/.test(chosen)) throw new TypeError("not Latin-1");
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(chosen, "latin1"));
  } catch {
    throw new BadHost("charset", "expected ASCII or UTF-8");
  }
}

/** "platform": in a platform zone, and no tenant can have it, so it is never looked up. */
export type HostKind = "subdomain" | "custom" | "platform";

/**
 * The platform's own zones, each as "tenants.example.com". Hosts in a zone that can't be a tenant's
 * are answered without asking anybody, so a scanner that tries names in the zone costs nothing
 * behind this process.
 */
export class Zones {
  readonly zones: readonly string[];

  constructor(zones: readonly string[]) {
    this.zones = zones.map(normaliseHost);
  }

  /** Kind and slug (of a subdomain only) of a *normalised* host. The longest zone counts. */
  classify(host: string): { readonly kind: HostKind; readonly slug: string | null } {
    let best = "";
    for (const zone of this.zones) {
      if (zone.length > best.length && (host === zone || host.endsWith(`.${zone}`))) best = zone;
    }
    if (best === "") return { kind: "custom", slug: null };
    const slug = host.slice(0, Math.max(0, host.length - best.length - 1));
    if (SLUG.test(slug) && !slug.startsWith("xn--") && !RESERVED.has(slug)) {
      return { kind: "subdomain", slug };
    }
    return { kind: "platform", slug: null };
  }
}
