/**
 * Sessions over TLS, as `tests/dataplane/test_tls.py` has them in Python. TEST_TLS is JSON: `payload` and
 * `login` of a tenant, `endpointMap` with the names `right`, for which the server has a certificate, and
 * `wrong`, at `port`; the files `authorities` and `strangers`, who have not signed it.
 */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { configOf } from "../../src/tenant-config.js";
import { Credentials } from "../../src/credentials.js";
import { Databases } from "../../src/databases.js";
import { EndpointMap } from "../../src/endpoints.js";
import { isDataPlaneError } from "../../src/errors.js";
import { settingsFrom } from "../../src/settings.js";

interface Given {
  readonly payload: Record<string, unknown>;
  readonly login: { readonly username: string; readonly password: string };
  readonly endpointMap: string;
  readonly right: string;
  readonly wrong: string;
  readonly authorities: string;
  readonly strangers: string;
  readonly port: number;
}

const given = JSON.parse(process.env["TEST_TLS"] ?? "null") as Given | null;
assert.ok(given, "TEST_TLS: expected a tenant's JSON");
const { right, wrong, authorities, strangers } = given;

const CASES: readonly (readonly [string, string, string, boolean | null])[] = [
  [right, "verify-full", authorities, true],
  [wrong, "verify-full", authorities, null],
  [right, "verify-full", strangers, null],
  [right, "verify-full", "system", null],
  [wrong, "verify-ca", authorities, true],
  [right, "verify-ca", strangers, null],
  [right, "require", "", true],
  [right, "require", strangers, null],
  [right, "prefer", "", true],
  [right, "allow", "", false],
  [right, "disable", "", false],
];

for (const [host, sslMode, root, encrypted] of CASES) {
  const what = encrypted === null ? "refused" : encrypted ? "encrypted" : "plain";
  const by = root === strangers ? "by strangers" : "";
  test(`${sslMode} to ${host === right ? "the right" : "a wrong"} name ${by}: ${what}`, async () => {
    const settings = settingsFrom({
      DATAPLANE_CONFIG_KEYS: `k1:${Buffer.alloc(32).toString("base64")}`,
      DATAPLANE_CACHE_URL: "redis://127.0.0.1",
      DATAPLANE_SSLMODE: sslMode,
      DATAPLANE_SSLROOTCERT: root,
    });
    const config = configOf(given.payload);
    const databases = new Databases({
      credentials: new Credentials(async () => JSON.stringify(given.login)),
      endpoints: new EndpointMap(given.endpointMap),
      sslMode: settings.sslMode,
      sslRootCert: settings.sslRootCert,
      report: assert.fail,
    });
    after(() => databases.close());
    const database = databases.of({ ...config, database: { ...config.database!, host, port: given.port } });
    const asked = database.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    if (encrypted === null) {
      await assert.rejects(asked, (error) => isDataPlaneError(error) && error.code === "database-unavailable");
    } else {
      assert.deepEqual((await asked).rows, [{ ssl: encrypted }]);
    }
  });
}
