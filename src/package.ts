/** Where this package lies, whether it runs from its sources, from dist/ or installed. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

interface PackageInfo {
  root: string;
  version: string;
}
let found: PackageInfo | undefined;

/** The folder with this package's package.json, and its version. */
export function packageInfo(): PackageInfo {
  if (found) return found;
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, "package.json");
    if (existsSync(file)) {
      const { name, version } = JSON.parse(readFileSync(file, "utf8")) as { name?: string; version?: string };
      if (name === "mlx-vk") return (found = { root: folder, version: version ?? "0.0.0" });
    }
    if (folder === dirname(folder)) throw new Error("the files of the package mlx-vk are not where they should be");
  }
}

/** Folder of the model that comes with the package. */
export function defaultModel(): string {
  const folder = join(packageInfo().root, "models", "demo-shakespeare-4bit");
  if (!existsSync(join(folder, "config.json"))) throw new Error(`the demo model is missing (${folder}); name a model with --model`);
  return folder;
}
