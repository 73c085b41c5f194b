/**
 * The control plane's resolve endpoint as the last level: asked for hosts that neither this process
 * nor the cache knows, so it is called rarely and must never be waited for long.
 */

import { MAX_ENTRY_BYTES } from "./contract.js";
import type { Level } from "./resolve.js";

const TIMEOUT_MS = 2_000;

export class ControlPlaneLevel implements Level {
  readonly name = "control plane";

  /** `base`: asked as `<base>/v1/resolve?host=<host>`. `token`: sent as a bearer token where given. */
  constructor(
    private readonly base: string,
    private readonly token: string | null,
  ) {}

  /**
   * 200 brings `{"entry": "v1.…"}`. 404 means "there is none" only where its body is JSON: a load
   * balancer's or a wrong address's 404 page says nothing about the tenant.
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
    const text = await limitedText(response);
    const json = /^[^;]*json\s*(?:;|$)/i.test(response.headers.get("Content-Type") ?? "");
    if (response.status === 404 && json) return null;
    if (response.status !== 200 || !json) throw new Error(`answered ${response.status}`);
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null && "entry" in body && typeof body.entry === "string") {
      return body.entry;
    }
    throw new Error("entry: expected a string");
  }
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
