import { tenantCache } from "@tenant-controlplane/nextjs/cache";
import { db, tenant } from "@tenant-controlplane/nextjs/server";

/** A page made for each request from data that is cached: the data's key has the tenant in it. */
export default async function Digest() {
  const current = await tenant();
  const digest = await tenantCache(
    current,
    "digest",
    async () => {
      const { rows } = await db(current).query<{ notes: number; last: string | null }>(
        "SELECT count(*)::int AS notes, (SELECT body FROM app.note ORDER BY id DESC LIMIT 1) AS last FROM app.note",
      );
      return { ...rows[0], made: new Date().toISOString() };
    },
    { tags: ["notes"], revalidate: 3600 },
  )();
  return (
    <>
      <h1>Digest of {current.slug}</h1>
      <p>
        <span id="notes">{digest.notes}</span> notes, the last one: <span id="last">{digest.last}</span>
      </p>
      <p>
        Counted <time>{digest.made}</time>
      </p>
    </>
  );
}
