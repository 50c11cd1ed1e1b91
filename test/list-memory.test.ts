/** Memory of command lists: none that work in flight still uses. In a process of its own, whose lists are the first. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

test("lists that begin while others are in flight lie in no memory that those have given back but still use", () => {
  const script = fileURLToPath(new URL("helpers/list-memory.ts", import.meta.url));
  const differences = JSON.parse(execFileSync(process.execPath, ["--import", "tsx", script], { encoding: "utf8", env: { ...process.env, DEVICE: "cpu", MLX_FLUSH_BYTES: "2000000", MLX_STALL_SECONDS: "10" } })) as number[];
  expect(differences).toHaveLength(3);
  for (const d of differences) expect(d).toBeLessThan(5e-5);
});
