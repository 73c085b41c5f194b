/**
 * A Node process of a fleet that does what it is found, a line at a time, and answers each in a line of
 * JSON. `tests/browser/test_fleet.py` runs it beside Python's. TEST_FLEET is JSON: `cache`, the URL of a
 * Redis, `limit` and `lease`; TEST_TENANT is as in `databases.test.ts`.
 */

import { createInterface } from "node:readline";

import { configOf } from "../../src/tenant-config.js";
import { Credentials } from "../../src/credentials.js";
import { Databases } from "../../src/databases.js";
import { EndpointMap } from "../../src/endpoints.js";
import { isDataPlaneError } from "../../src/errors.js";
import { FleetBudget } from "../../src/fleet.js";

const given = JSON.parse(process.env["TEST_TENANT"] ?? "") as Record<"payload" | "login", unknown> & {
  readonly endpointMap: string;
};
const { cache, limit, lease } = JSON.parse(process.env["TEST_FLEET"] ?? "") as {
  readonly cache: string;
  readonly limit: number;
  readonly lease: number;
};

const fleet = new FleetBudget(cache, { limit, lease, warn: (message) => console.error(message) });
const databases = new Databases({
  credentials: new Credentials(async () => JSON.stringify(given.login)),
  endpoints: new EndpointMap(given.endpointMap),
  sslMode: "disable",
  sslRootCert: null,
  fleet,
  report: (message) => console.error(message),
});
const database = databases.of(configOf(given.payload));
let checkin = () => {};

const acts: Record<string, (cluster: string) => unknown> = {
  acquire: (cluster) => fleet.acquire(cluster),
  release: (cluster) => fleet.release(cluster),
  held: (cluster) => fleet.held(cluster),
  /** Hold a connection to the tenant's database until `checkin`. */
  checkout: () =>
    new Promise((lent, refused) => {
      const work = () => {
        lent(true);
        return new Promise<void>((resolve) => (checkin = resolve));
      };
      database.session(work).catch(refused);
    }),
  checkin: () => checkin(),
  close: () => databases.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [act = "", cluster = ""] = line.split(" ");
  let answer: unknown;
  try {
    answer = await acts[act]?.(cluster);
  } catch (error) {
    if (!isDataPlaneError(error)) throw error;
    answer = { code: error.code, status: error.status, retryAfter: error.retryAfter };
  }
  console.log(JSON.stringify(answer ?? null));
}
await databases.close();
await fleet.close();
