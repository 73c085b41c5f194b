import { db, isDataPlaneError, tenantFrom } from "@tenant-controlplane/nextjs/server";
import { notFound } from "next/navigation";

/** A whole page that Next.js keeps (ISR). Visitors see `/board`; the proxy puts the tenant into the path. */
export const revalidate = 3600;

export function generateStaticParams(): { tenant: string }[] {
  return []; // each tenant's page is made when it is first asked for
}

export default async function Board({ params }: { params: Promise<{ tenant: string }> }) {
  const current = await tenantFrom((await params).tenant).catch((error: unknown) => {
    if (isDataPlaneError(error) && error.code === "unknown-host") notFound();
    throw error;
  });
  const { rows } = await db(current).query<{ body: string }>("SELECT body FROM app.note ORDER BY id DESC LIMIT 5");
  return (
    <>
      <h1>Board of {current.slug}</h1>
      <ul>
        {rows.map(({ body }) => (
          <li key={body}>{body}</li>
        ))}
      </ul>
      <p>
        Made <time>{new Date().toISOString()}</time>
      </p>
    </>
  );
}
