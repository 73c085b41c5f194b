/**
 * Where a database endpoint's bytes really go on a machine that has no RDS: a JSON file
 * `{"<host>:<port>": "<address>:<port>"}`, read anew when it changes. The name stays what TLS
 * verifies; production leaves the map out.
 */

import { readFileSync, statSync } from "node:fs";

const MAX_BYTES = 4 * 1024 * 1024;

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export class EndpointMap {
  #stamp = "";
  #addresses = new Map<string, Endpoint>();

  constructor(private readonly path: string | null) {}

  /** @throws Error naming the file and the entry where the map can't be understood. */
  resolve(host: string, port: number): Endpoint {
    if (this.path === null) return { host, port };
    this.#refresh(this.path);
    return this.#addresses.get(`${host}:${port}`) ?? { host, port };
  }

  #refresh(path: string): void {
    const { mtimeMs, size, ino } = statSync(/* turbopackIgnore: true */ path);
    const stamp = `${mtimeMs}/${size}/${ino}`;
    if (stamp === this.#stamp) return;
    if (size > MAX_BYTES) throw new Error(`endpoint map ${path}: expected at most ${MAX_BYTES} bytes, got ${size}`);
    const raw: unknown = JSON.parse(readFileSync(/* turbopackIgnore: true */ path, "utf8"));
    if (typeof raw !== "object" || raw === null || Array.isArray(raw)) {
      throw new Error(`endpoint map ${path}: expected a JSON object`);
    }
    this.#addresses = new Map(Object.entries(raw).map(([name, address]) => [name, parse(path, name, address)]));
    this.#stamp = stamp;
  }
}

function parse(path: string, name: string, address: unknown): Endpoint {
  const match = typeof address === "string" ? /^(.+):([0-9]{1,5})$/.exec(address) : null;
  const [, host, port] = match ?? [];
  if (host === undefined || port === undefined || Number(port) > 65535) {
    throw new Error(`endpoint map ${path}: ${name}: expected "<address>:<port>"`);
  }
  return { host: host.replace(/^\[|\]$/g, ""), port: Number(port) };
}
