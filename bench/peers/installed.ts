/** Libraries installed in this folder. They are no dependencies of the package: they may be absent. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = (name: string): string => join(import.meta.dirname, "node_modules", name);

/** Version of an installed library; undefined when it is not installed. */
export function version(name: string): string | undefined {
  const file = join(folder(name), "package.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version : undefined;
}

/** Path of a file of a library. */
export const fileOf = (name: string, path: string): string => join(folder(name), path);

/** Imports a library; `subpath` as its exports name it. */
export async function load<T>(name: string): Promise<T> {
  if (version(name.split("/").slice(0, name.startsWith("@") ? 2 : 1).join("/")) === undefined) throw new Error(`${name} is not installed: cd bench/peers && npm install`);
  const require = createRequire(join(import.meta.dirname, "package.json"));
  // Packages without an entry for require (ES modules only) are found by Node's import from this folder.
  let url: string;
  try {
    url = pathToFileURL(require.resolve(name)).href;
  } catch {
    url = name;
  }
  return (await import(url)) as T;
}
