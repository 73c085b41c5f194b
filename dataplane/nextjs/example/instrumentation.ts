export { register } from "@tenant-controlplane/nextjs/instrumentation";
