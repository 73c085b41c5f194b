/**
 * The control plane's resolve endpoint as the last tier: asked for hosts that neither this process
 * nor the cache knows, so it is called rarely and must never be waited for long.
 */

import { MAX_ENTRY_BYTES } from "./tenant-config.js";
import type { Tier } from "./resolve.js";

const TIMEOUT_MS = 2_000;

export class ControlPlaneTier implements Tier {
  readonly name = "control plane";

  /** `base`: asked as `<base>/v1/resolve?host=<host>`. `token`: sent as a bearer token where given. */
  constructor(
    private readonly base: string,
    private readonly token: string | null,
  ) {}

  /**
   * 200 brings `{"entry": "v2-…"}`. "There is none" is `{"error": {"code": "unknown_host"}}` with 404,
   * and a 400 that blames the host: a 404 of a load balancer, or of a wrong base URL, says nothing
   * about a tenant.
   */
  async entry(host: string): Promise<string | null> {
    const url = new URL(`${this.base.replace(/\/+$/, "")}/v1/resolve`);
    url.searchParams.set("host", host);
    const response = await fetch(url, {
      headers: { Accept: "application/json", ...(this.token && { Authorization: `Bearer ${this.token}` }) },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
      redirect: "error",
    });
    const body = documentOf(response.headers.get("Content-Type"), await limitedText(response));
    if (saysNone(response.status, body?.["error"])) return null;
    if (response.status !== 200 || body === null) throw new Error(`answered ${response.status}`);
    if (typeof body["entry"] !== "string") throw new Error("entry: expected a string");
    return body["entry"];
  }
}

/** The JSON object in an answer, if it says that it is JSON. */
function documentOf(type: string | null, text: string): Record<string, unknown> | null {
  if (!/^[^;]*json\s*(?:;|$)/i.test(type ?? "")) return null;
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return null;
  }
  return typeof document === "object" && document !== null ? (document as Record<string, unknown>) : null;
}

function saysNone(status: number, error: unknown): boolean {
  if (typeof error !== "object" || error === null) return false;
  const { code, field } = error as { code?: unknown; field?: unknown };
  if (status === 404) return code === "unknown_host";
  return status === 400 && code === "invalid" && field === "host";
}

async function limitedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > 2 * MAX_ENTRY_BYTES) throw new Error(`expected at most ${2 * MAX_ENTRY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
