/**
 * Host → tenant → its own database, for Next.js. Applications import from the two places where this
 * runs: `@tenant-controlplane/nextjs/proxy` and `@tenant-controlplane/nextjs/server`; caching helpers
 * are in `/cache`. The parts below are for other servers and for tests.
 */

export { TenantConfigError, cacheKeyOf, verify, type DatabaseAddress, type Status, type TenantConfig } from "./tenant-config.js";
export { ControlPlaneTier } from "./control.js";
export { Credentials, secretsManagerReader } from "./credentials.js";
export { Databases, type Database, type Session } from "./databases.js";
export { EndpointMap } from "./endpoints.js";
export { DataPlaneError, isDataPlaneError, type ErrorCode } from "./errors.js";
export { FleetBudget, type FleetOptions } from "./fleet.js";
export { BadHost, normaliseHost, rawHost, Zones } from "./hosts.js";
export { InvalidationListener, RedisTier } from "./redis.js";
export { Releases } from "./releases.js";
export { Resolver, type Tier, type Resolved } from "./resolve.js";
