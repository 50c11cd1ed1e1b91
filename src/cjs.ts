/** Entry of the CommonJS bundle: one file, so that `require("mlx-vk")` and `require("mlx-vk/llm")` share one library. */
export * from "./index.ts";
export * as llm from "./llm/index.ts";
