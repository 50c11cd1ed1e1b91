/** Layers and models' base class, with mlx.nn's names in camelCase. */
export { Module, type ModuleFilter, type NestedDict } from "./module.ts";
export {
  GELU, GLU, LeakyReLU, LogSoftmax, ReLU, ReLU2, ReLU6, SiLU, Sigmoid, Softmax, Tanh, geluApprox, geluFastApprox, gelu, glu, leakyRelu, logSoftmax, relu, relu2, relu6, sigmoid, silu,
  softmax, tanh,
} from "./layers/activations.ts";
export * from "./layers/piecewise-activations.ts";
export { Sequential } from "./layers/containers.ts";
export { Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d } from "./layers/convolution.ts";
export { Dropout, Dropout2d, Dropout3d } from "./layers/dropout.ts";
export { Embedding } from "./layers/embedding.ts";
export { Bilinear, Identity, Linear } from "./layers/linear.ts";
export { BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm } from "./layers/normalization.ts";
export { AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d } from "./layers/pooling.ts";
export { ALiBi, RoPE, SinusoidalPositionalEncoding } from "./layers/positional.ts";
export { QQLinear } from "./layers/qq-linear.ts";
export { QuantizedEmbedding, QuantizedLinear, type QuantizationOptions, quantize } from "./layers/quantized.ts";
export { GRU, LSTM, RNN } from "./layers/recurrent.ts";
export { MultiHeadAttention, Transformer, TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer, type Mask } from "./layers/transformer.ts";
export { Upsample, upsampleCubic, upsampleLinear, upsampleNearest } from "./layers/upsample.ts";
export * as init from "./init.ts";
export * as losses from "./losses.ts";
export { checkpoint, valueAndGrad } from "./transforms.ts";
