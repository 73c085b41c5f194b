/**
 * Which releases of the tenants' schema this version of the application works with.
 *
 * The same ranges as `dataplane/releases.py` reads, which says why; `tests/vectors/releases.json` holds
 * the cases of both:
 *
 *     0003..0005    from the one to the other      0003..    that one and every later one
 *     0004          that one alone                 ..0005    that one and every earlier one
 */

const RANGE = /^([0-9]{4})?\.\.([0-9]{4})?$/;
const NUMBER = /^[0-9]{4}$/;
const EXPECTED = "releases such as 0003..0005, 0003.., ..0005 or 0004";

export class Releases {
  /** Every tenant is served, also one whose release is not known. */
  static readonly ALL = new Releases(null, null);

  /** Both included; null: no end on that side. */
  private constructor(
    readonly least: string | null,
    readonly most: string | null,
  ) {}

  /** @throws RangeError that says what was expected. */
  static parse(text: string): Releases {
    const [, least = null, most = null] = NUMBER.test(text) ? [text, text, text] : (RANGE.exec(text) ?? []);
    const backwards = least !== null && most !== null && least > most;
    if ((least === null && most === null) || backwards) {
      throw new RangeError(`expected ${EXPECTED}, got ${JSON.stringify(text.slice(0, 80))}`);
    }
    return new Releases(least, most);
  }

  /** Does this version of the application work with a database of that release? */
  serve(release: string | null): boolean {
    if (this.least === null && this.most === null) return true;
    if (release === null || !NUMBER.test(release)) return false;
    return (this.least ?? release) <= release && release <= (this.most ?? release);
  }
}
