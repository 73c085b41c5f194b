/**
 * The tenants' database logins: read from Secrets Manager, kept in this process and nowhere else.
 *
 * A login is used until there is a sign that it changed, so serving does not depend on Secrets Manager
 * being there: the server refused it (28P01), or a rotation invalidation came. Where the new one can't be
 * had the old one is used on; rotation leaves it valid until the new one is in use. A secret that is
 * simply wrong, or a vault that is down, is asked at most once in `PAUSE_MS`, not at every request.
 *
 * The process itself may read no secret. It assumes the role that the entry names, as a session that is tagged
 * with the entry's placement, and AWS opens to that session what bears the same tag. One client serves all
 * sessions: each of its requests is signed with the keys of the session that it is made in.
 */

import { AsyncLocalStorage } from "node:async_hooks";

import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { AssumeRoleCommand, STSClient } from "@aws-sdk/client-sts";
import { SignatureV4 } from "@smithy/signature-v4";
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

/** What a login is read by: the secret, the role as which that is done, and what its session is tagged with. */
export interface SecretAddress {
  readonly placement: string;
  readonly role: string;
  readonly secret: string;
}

/** Reads one secret's current value. */
export type SecretReader = (address: SecretAddress) => Promise<string>;

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
  async login(address: SecretAddress): Promise<Login> {
    const cached = this.#cached.get(address.secret);
    if (cached === undefined) return this.#readOnce(address);
    if (!cached.stale || this.now() < cached.quietUntil) return cached.login;
    try {
      return await this.#readOnce(address);
    } catch {
      this.#cached.set(address.secret, { ...cached, quietUntil: this.now() + PAUSE_MS });
      return cached.login;
    }
  }

  /** The login to try after the server refused `refused`; the same one where there is no other. */
  async afterRefusal(address: SecretAddress, refused: Login): Promise<Login> {
    const cached = this.#cached.get(address.secret);
    if (cached !== undefined && cached.login !== refused) return cached.login;
    if (cached !== undefined && this.now() < cached.quietUntil) return refused;
    const login = await this.#readOnce(address);
    this.#cached.set(address.secret, { login, stale: false, quietUntil: this.now() + PAUSE_MS });
    return login.username === refused.username && login.password() === refused.password() ? refused : login;
  }

  /** A rotation invalidation came: read the secret anew before its login is next used, if that can be done. */
  expire(arn: string): void {
    const cached = this.#cached.peek(arn);
    if (cached !== undefined) this.#cached.set(arn, { login: cached.login, stale: true, quietUntil: -Infinity });
  }

  #readOnce(address: SecretAddress): Promise<Login> {
    const { secret } = address;
    const running = this.#reads.get(secret);
    if (running !== undefined) return running;
    const reading = this.#readNow(address).finally(() => this.#reads.delete(secret));
    this.#reads.set(secret, reading);
    return reading;
  }

  async #readNow(address: SecretAddress): Promise<Login> {
    let text: string;
    try {
      text = await this.read(address);
    } catch (error) {
      const message = "credentials: the secret could not be read";
      const retryAfter = error instanceof Throttled ? error.retryAfter : 5;
      throw new DataPlaneError("credential-unavailable", message, { cause: error, retryAfter });
    }
    const login = parseLogin(text);
    this.#cached.set(address.secret, { login, stale: false, quietUntil: -Infinity });
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

/** As short as STS makes them: a session reads one secret, and perhaps once more. */
const SESSION_SECONDS = 900;
const SESSION_MARGIN_MS = 60_000;
const MAX_SESSIONS = 1_000;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
const THROTTLED = new Set([
  "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException",
]);

/** The keys of a session. */
interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
}

/** What of the SDK is used, so that tests can stand in for AWS. */
export interface Aws {
  /** As the process itself. */
  assume(role: string, placement: string): Promise<Keys>;
  /** As the session whose keys these are. */
  read(keys: Keys, secret: string): Promise<string>;
}

/** AWS has asked for fewer requests. `retryAfter`: seconds. */
class Throttled extends Error {
  constructor(readonly retryAfter: number) {
    super("AWS throttles");
  }
}

/** After AWS has throttled nobody is let through for a while, then one caller at a time, each after a longer while. */
class Backoff {
  #tries = 0;
  #until: number | null = null; // all is well

  constructor(
    private readonly now: () => number,
    private readonly random: () => number,
  ) {}

  /** @throws Throttled while nobody is let through. */
  check(): void {
    if (this.#until === null) return;
    const left = this.#until - this.now();
    if (left > 0) throw new Throttled(left / 1000);
    this.#tries += 1;
    this.#until = this.now() + this.#wait();
  }

  throttled(): Throttled {
    this.#until ??= this.now() + this.#wait();
    return new Throttled(Math.max(0, this.#until - this.now()) / 1000);
  }

  worked(): void {
    this.#tries = 0;
    this.#until = null;
  }

  /** Spread, so that processes that were throttled together do not come back together. */
  #wait(): number {
    return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tries) * (0.5 + this.random() / 2);
  }
}

/**
 * Secrets Manager, each secret read as a session of its role that is tagged with its placement, so that AWS refuses
 * it any other's. AWS_REGION and AWS_ENDPOINT_URL are the SDK's own variables.
 */
export function secretsManagerReader(
  aws: Aws = sdk(),
  now: () => number = () => performance.now(),
  random: () => number = Math.random,
): SecretReader {
  const sessions = new LRUCache<string, { readonly keys: Keys; readonly until: number }>({ max: MAX_SESSIONS });
  const backoff = new Backoff(now, random);

  const begin = async (id: string, role: string, placement: string): Promise<Keys> => {
    const until = now() + SESSION_SECONDS * 1000 - SESSION_MARGIN_MS;
    const keys = await aws.assume(role, placement);
    sessions.set(id, { keys, until });
    return keys;
  };

  return async ({ placement, role, secret }) => {
    backoff.check();
    const id = `${role} ${placement}`;
    try {
      const known = sessions.get(id);
      if (known !== undefined && now() < known.until) {
        try {
          return await aws.read(known.keys, secret);
        } catch (error) {
          if (isThrottling(error)) throw error;
          sessions.delete(id); // AWS may have ended it
        }
      }
      const text = await aws.read(await begin(id, role, placement), secret);
      backoff.worked();
      return text;
    } catch (error) {
      throw isThrottling(error) ? backoff.throttled() : error;
    }
  };
}

function isThrottling(error: unknown): boolean {
  return error instanceof Error && THROTTLED.has(error.name);
}

function sdk(): Aws {
  const swapped = new AsyncLocalStorage<Keys>();
  const sts = new STSClient({ maxAttempts: 2 });
  const secrets: SecretsManagerClient = new SecretsManagerClient({
    maxAttempts: 2,
    // Never asked for by our signer, and never the process's own.
    credentials: { accessKeyId: "of-a-session", secretAccessKey: "of-a-session" },
    signer: {
      async sign(request, options) {
        const keys = swapped.getStore();
        if (keys === undefined) throw new Error("no session's keys are in use here: a request must be one's");
        const { region, sha256 } = secrets.config;
        const signer = new SignatureV4({ credentials: keys, region, service: "secretsmanager", sha256 });
        return signer.sign(request, options);
      },
    },
  });
  return {
    async assume(role, placement) {
      const command = new AssumeRoleCommand({
        RoleArn: role,
        RoleSessionName: placement,
        Tags: [{ Key: "placement", Value: placement }],
        DurationSeconds: SESSION_SECONDS,
      });
      const { Credentials: granted } = await sts.send(command, { abortSignal: AbortSignal.timeout(TIMEOUT_MS) });
      const { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken } = granted ?? {};
      if (!accessKeyId || !secretAccessKey || !sessionToken) throw new Error("the session has no keys");
      return { accessKeyId, secretAccessKey, sessionToken };
    },
    read(keys, secret) {
      return swapped.run(keys, async () => {
        const command = new GetSecretValueCommand({ SecretId: secret, VersionStage: "AWSCURRENT" });
        const { SecretString: text } = await secrets.send(command, { abortSignal: AbortSignal.timeout(TIMEOUT_MS) });
        if (text === undefined) throw new Error("the secret has no text");
        return text;
      });
    },
  };
}
