/**
 * Whose connects failed lately. Their requests fail at once for a growing while, instead of each
 * waiting for a timeout and holding up the process for a database that is not there.
 */

import { LRUCache } from "lru-cache";

interface Failure {
  readonly error: unknown;
  readonly pause: number;
  readonly until: number;
}

const MAX_FAILURES = 10_000;

export class Backoff {
  readonly #failures = new LRUCache<string, Failure>({ max: MAX_FAILURES });

  /** Milliseconds: the `first` pause doubles with each failure in a row, up to `most`. */
  constructor(
    private readonly first: number,
    private readonly most: number,
    private readonly now: () => number,
  ) {}

  /** The failure because of which it is too early to try again. */
  pending(id: string): { readonly error: unknown } | null {
    const failure = this.#failures.get(id);
    return failure !== undefined && this.now() < failure.until ? failure : null;
  }

  failed(id: string, error: unknown): void {
    const before = this.#failures.get(id)?.pause ?? this.first / 2;
    const pause = Math.min(before * 2, this.most);
    this.#failures.set(id, { error, pause, until: this.now() + pause });
  }

  /** It worked, or there is a reason why it may from now on. */
  clear(id: string): void {
    this.#failures.delete(id);
  }
}
