import { defineConfig } from "vitest/config";

const source = (file: string): string => new URL(`../src/${file}`, import.meta.url).pathname;

export default defineConfig({
  // Examples import the package by its name; here, as in tsconfig.json, that is the sources.
  resolve: { alias: [{ find: /^mlx-vk$/, replacement: source("index.ts") }, { find: /^mlx-vk\/llm$/, replacement: source("llm/index.ts") }] },
  test: {
    root: new URL("..", import.meta.url).pathname,
    include: ["test/**/*.test.ts"],
    // Each test file runs its own worker threads: more than two files at once would only make them wait for each other.
    pool: "forks",
    maxWorkers: 2,
    // What was measured on the machine that tests run on must not decide what they see.
    env: { MLX_TUNE: process.env["MLX_TUNE"] ?? "0" },
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
});
