// What `drizzle-kit generate` compares with; the migrations below are its output.
import { bigint, integer, pgTable, text } from 'drizzle-orm/pg-core'

export const note = pgTable('note', {
  id: bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  body: text().notNull(),
  stars: integer().notNull().default(0),
})
