/**
 * The tenants' database logins: read from Secrets Manager, kept in this process and nowhere else.
 *
 * A login is used until there is a sign that it changed, so serving does not depend on Secrets Manager
 * being there: the server refused it (28P01), or a rotation invalidation came. Where the new one can't be
 * had the old one is used on; rotation leaves it valid until the new one is in use. A secret that is
 * simply wrong, or a vault that is down, is asked at most once in `PAUSE_MS`, not at every request.
 */

import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { fromTemporaryCredentials } from "@aws-sdk/credential-providers";
import { LRUCache } from "lru-cache";

import { DataPlaneError } from "./errors.js";

export class Login {
  readonly #password: string;

  constructor(
    readonly username: string,
    password: string,
  ) {
    this.#password = password;
  }

  /** A method, and the field private, so that no log or serialiser of objects ever shows it. */
  password(): string {
    return this.#password;
  }
}

/** Reads one secret's current value. */
export type SecretReader = (arn: string) => Promise<string>;

const PAUSE_MS = 2_000;
const TIMEOUT_MS = 3_000;
const MAX_LOGINS = 10_000;

interface Cached {
  readonly login: Login;
  /** An invalidation says that it changed. */
  readonly stale: boolean;
  /** Not to be read anew before, -Infinity where nothing speaks against it. */
  readonly quietUntil: number;
}

export class Credentials {
  readonly #cached = new LRUCache<string, Cached>({ max: MAX_LOGINS });
  readonly #reads = new Map<string, Promise<Login>>();

  constructor(
    private readonly read: SecretReader,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /**
   * The login that the secret holds, from memory where it is known.
   * @throws DataPlaneError "credential-unavailable" where there is none to be had.
   */
  async login(arn: string): Promise<Login> {
    const cached = this.#cached.get(arn);
    if (cached === undefined) return this.#readOnce(arn);
    if (!cached.stale || this.now() < cached.quietUntil) return cached.login;
    try {
      return await this.#readOnce(arn);
    } catch {
      this.#cached.set(arn, { ...cached, quietUntil: this.now() + PAUSE_MS });
      return cached.login;
    }
  }

  /** The login to try after the server refused `refused`; the same one where there is no other. */
  async afterRefusal(arn: string, refused: Login): Promise<Login> {
    const cached = this.#cached.get(arn);
    if (cached !== undefined && cached.login !== refused) return cached.login;
    if (cached !== undefined && this.now() < cached.quietUntil) return refused;
    const login = await this.#readOnce(arn);
    this.#cached.set(arn, { login, stale: false, quietUntil: this.now() + PAUSE_MS });
    return login.username === refused.username && login.password() === refused.password() ? refused : login;
  }

  /** A rotation invalidation came: read the secret anew before its login is next used, if that can be done. */
  expire(arn: string): void {
    const cached = this.#cached.peek(arn);
    if (cached !== undefined) this.#cached.set(arn, { login: cached.login, stale: true, quietUntil: -Infinity });
  }

  #readOnce(arn: string): Promise<Login> {
    const running = this.#reads.get(arn);
    if (running !== undefined) return running;
    const reading = this.#readNow(arn).finally(() => this.#reads.delete(arn));
    this.#reads.set(arn, reading);
    return reading;
  }

  async #readNow(arn: string): Promise<Login> {
    let text: string;
    try {
      text = await this.read(arn);
    } catch (error) {
      const message = "credentials: the secret could not be read";
      throw new DataPlaneError("credential-unavailable", message, { cause: error, retryAfter: 5 });
    }
    const login = parseLogin(text);
    this.#cached.set(arn, { login, stale: false, quietUntil: -Infinity });
    return login;
  }
}

/** The error's message never quotes the text: it is the secret. */
function parseLogin(text: string): Login {
  let raw: unknown = null;
  try {
    raw = JSON.parse(text);
  } catch {
    raw = null;
  }
  const { username, password } = (typeof raw === "object" && raw !== null ? raw : {}) as Record<string, unknown>;
  if (typeof username !== "string" || typeof password !== "string") {
    const message = 'credentials: expected a secret with "username" and "password"';
    throw new DataPlaneError("credential-unavailable", message, { retryAfter: 30 });
  }
  return new Login(username, password);
}

const PLACE = /:secret:tenants\/(t-[a-z2-7]+)\/([1-9][0-9]*)\//;
const MAX_CLIENTS = 1_000;

/** The tenant whose secret this is, by its name; null where the name does not say. */
export function tenantOfSecret(arn: string): string | null {
  return PLACE.exec(arn)?.[1] ?? null;
}

/**
 * Secrets Manager. `role`: an ARN with `{placement}` in it; each secret is then read as the tenant's own
 * role, which may read no other, so that AWS as well refuses a mixed-up ARN. Null: as the process itself.
 * AWS_REGION and AWS_ENDPOINT_URL are the SDK's own variables.
 */
export function secretsManagerReader(role: string | null): SecretReader {
  const clients = new LRUCache<string, SecretsManagerClient>({ max: MAX_CLIENTS });
  return async (arn) => {
    const [, tenantId, number] = PLACE.exec(arn) ?? [];
    if (role !== null && tenantId === undefined) throw new Error("expected a secret named tenants/<id>/<number>/…");
    const roleArn = role?.replace("{placement}", `${tenantId}-${number}`) ?? "";
    let client = clients.get(roleArn);
    if (client === undefined) {
      // The role's trust policy asks for the tenant's id as the external id.
      const own = { RoleArn: roleArn, RoleSessionName: "dataplane", ExternalId: tenantId };
      const params = { ...own, DurationSeconds: 900 };
      const identity = roleArn === "" ? {} : { credentials: fromTemporaryCredentials({ params }) };
      client = new SecretsManagerClient({ maxAttempts: 2, ...identity });
      clients.set(roleArn, client);
    }
    const command = new GetSecretValueCommand({ SecretId: arn, VersionStage: "AWSCURRENT" });
    const { SecretString: text } = await client.send(command, { abortSignal: AbortSignal.timeout(TIMEOUT_MS) });
    if (text === undefined) throw new Error("the secret has no text");
    return text;
  };
}
