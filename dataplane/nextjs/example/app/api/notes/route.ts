import { db, tenant, tenantRoute } from "@tenant-controlplane/nextjs/server";

export const GET = tenantRoute(async () => {
  const { id } = await tenant();
  const { rows } = await db().query("SELECT id, body, created_at FROM app.note ORDER BY id LIMIT 50");
  return Response.json({ tenant: id, notes: rows }, { headers: { "Cache-Control": "private, no-store" } });
});
