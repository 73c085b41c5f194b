/** Reads the cases that the Python and the TypeScript data plane share. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export function vectors<T>(name: string): T {
  const folder = new URL("../../../../tests/vectors/", import.meta.url); // from build/test
  return JSON.parse(readFileSync(fileURLToPath(new URL(name, folder)), "utf8")) as T;
}
