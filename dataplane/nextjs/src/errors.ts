/**
 * Every way in which a request can fail to reach its tenant's database, with the same codes, statuses
 * and sentences as `dataplane/errors.py`. None of them names a database, a login or an address,
 * because the person who sees one is a customer of a customer.
 *
 * Next.js compiles the proxy and the pages into bundles of their own, each with its own copy of this
 * module, so `instanceof` is false across them: use `isDataPlaneError()`, which looks at a brand.
 */

const BRAND = Symbol.for("tenant-controlplane.nextjs.error");

/** Stable, for machines. */
export type ErrorCode =
  | "bad-host"
  | "unknown-host"
  | "suspended"
  | "provisioning"
  | "being-updated"
  | "routing-unavailable"
  | "busy"
  | "waking"
  | "database-unavailable"
  | "credential-unavailable"
  | "cross-tenant"
  | "no-tenant";

interface Wording {
  readonly status: number;
  readonly title: string;
  readonly explanation: string;
}

const FAILED: Wording = {
  status: 500,
  title: "Something went wrong",
  explanation: "The request could not be completed.",
};

export const WORDING: Readonly<Record<ErrorCode, Wording>> = {
  "bad-host": {
    status: 400,
    title: "Bad request",
    explanation: "The address of this request is not a valid host name.",
  },
  "unknown-host": {
    status: 404,
    title: "Nothing here",
    explanation: "No customer of ours has this address. Please check its spelling.",
  },
  suspended: {
    status: 403,
    title: "Suspended",
    explanation: "This account is suspended. Its data is kept. Its owner can lift this in the billing page.",
  },
  provisioning: {
    status: 503,
    title: "Almost there",
    explanation: "This account is being set up at this moment. This page works as soon as it is ready.",
  },
  "being-updated": {
    status: 503,
    title: "Being updated",
    explanation: "This account is being updated at this moment. This page works again as soon as that is done.",
  },
  "routing-unavailable": {
    status: 503,
    title: "Back in a moment",
    explanation: "This address can't be looked up at the moment. Nothing is lost; please try again.",
  },
  busy: {
    status: 503,
    title: "Very busy",
    explanation: "There are more requests than this account can answer at once. Please try again.",
  },
  waking: {
    status: 503,
    title: "Waking up",
    explanation: "The database of this account was asleep and is starting. That can take a minute.",
  },
  "database-unavailable": {
    status: 503,
    title: "Back in a moment",
    explanation: "The data of this account can't be reached at the moment. Nothing is lost.",
  },
  "credential-unavailable": {
    status: 503,
    title: "Back in a moment",
    explanation: "The data of this account can't be reached at the moment. Nothing is lost.",
  },
  "cross-tenant": {
    status: 500,
    title: "Stopped for safety",
    explanation: "A safety check stopped this request. Our staff has been notified.",
  },
  "no-tenant": FAILED,
};

/** `retryAfter`: seconds after which trying again makes sense; null where waiting does not help. */
export class DataPlaneError extends Error {
  override readonly name = "DataPlaneError";
  readonly [BRAND] = true;
  readonly status: number;
  readonly retryAfter: number | null;

  constructor(
    readonly code: ErrorCode,
    message: string,
    options: { cause?: unknown; retryAfter?: number; status?: number } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.status = options.status ?? WORDING[code].status;
    this.retryAfter = options.retryAfter ?? null;
  }
}

export function isDataPlaneError(error: unknown): error is DataPlaneError {
  return typeof error === "object" && error !== null && BRAND in error;
}

/** The JSON answer for a machine, with `Retry-After` where it helps. Never cached. */
export function errorResponse(error: DataPlaneError): Response {
  const headers = new Headers({ "Cache-Control": "no-store" });
  if (error.retryAfter !== null) headers.set("Retry-After", String(Math.ceil(error.retryAfter)));
  const { title, explanation } = WORDING[error.code];
  return Response.json({ code: error.code, title, explanation }, { status: error.status, headers });
}
