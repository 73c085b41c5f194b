// One tenant's database, named by DATABASE_URL. Drizzle's own journal stand in the tenant's schema.
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL, { max: 1, onnotice: () => {} })
try {
  await migrate(drizzle(sql), { migrationsFolder: 'migrations', migrationsSchema: 'app' })
} catch (error) {
  const cause = error.cause ?? error
  console.error(`${error.message.split('\n')[0]}: ${cause.code ?? ''} ${cause.message}`)
  process.exitCode = 1
} finally {
  await sql.end()
}
