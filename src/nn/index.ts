/** Layers and models' base class, with mlx.nn's names in camelCase. */
export { Module, type ModuleFilter, type NestedDict } from "./module.ts";
export {
  GELU, GLU, LeakyReLU, LogSoftmax, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Tanh, geluApprox, geluFastApprox, gelu, glu, leakyRelu, logSoftmax, relu, relu6, sigmoid, silu,
  softmax, tanh,
} from "./layers/activations.ts";
export * from "./layers/piecewise-activations.ts";
export { Dropout, Sequential } from "./layers/containers.ts";
export { Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d } from "./layers/convolution.ts";
export { Embedding } from "./layers/embedding.ts";
export { Identity, Linear } from "./layers/linear.ts";
export { LayerNorm, RMSNorm } from "./layers/normalization.ts";
export { AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d } from "./layers/pooling.ts";
export { RoPE } from "./layers/positional.ts";
export { QuantizedEmbedding, QuantizedLinear, quantize } from "./layers/quantized.ts";
export { Upsample, upsampleCubic, upsampleLinear, upsampleNearest } from "./layers/upsample.ts";
export * as init from "./init.ts";
export * as losses from "./losses.ts";
export { checkpoint, valueAndGrad } from "./transforms.ts";
