// Compute pipelines: made on the calling thread or on the runtime's thread pool.
#include <cstring>

#include "context.h"

namespace {

constexpr uint32_t spirvMagic = 0x07230203;

PipelineSpec specOf(Context& c, const Info& info) {
  c.requireDevice();
  const Napi::Uint32Array code = wordsArgument(info[0], "spirv");
  PipelineSpec spec;
  spec.code.assign(code.Data(), code.Data() + code.ElementLength());
  if (spec.code.size() < 6 || spec.code[0] != spirvMagic) throw Failure{"BAD_ARGUMENT", "spirv is not a SPIR-V module"};
  if (!info[1].IsObject()) throw Failure{"BAD_ARGUMENT", "options must be an object"};
  const Napi::Object options = info[1].As<Napi::Object>();
  spec.pushBytes = uint32Argument(options.Get("pushBytes"), "pushBytes");
  if (spec.pushBytes % 4 || spec.pushBytes > c.limits.maxPushConstantsSize)
    throw Failure{"BAD_RANGE", "pushBytes must be a multiple of 4 up to " + std::to_string(c.limits.maxPushConstantsSize) + ", got " + std::to_string(spec.pushBytes)};
  if (!options.Get("constants").IsUndefined()) {
    const Napi::Uint32Array constants = wordsArgument(options.Get("constants"), "constants");
    spec.constants.assign(constants.Data(), constants.Data() + constants.ElementLength());
    if (spec.constants.size() % 2) throw Failure{"BAD_ARGUMENT", "constants must be pairs of id and value"};
  }
  if (options.Get("subgroupSize").IsUndefined()) return spec;
  spec.subgroupSize = uint32Argument(options.Get("subgroupSize"), "subgroupSize");
  const bool power = spec.subgroupSize && !(spec.subgroupSize & (spec.subgroupSize - 1));
  if (!c.subgroupControl || !power || spec.subgroupSize < c.minSubgroup || spec.subgroupSize > c.maxSubgroup)
    throw Failure{"BAD_RANGE", "the device has subgroups of " + std::to_string(c.minSubgroup) + " to " + std::to_string(c.maxSubgroup) + ", got " + std::to_string(spec.subgroupSize)};
  return spec;
}

// Any thread.
void build(Context& c, PipelineObject& p, const PipelineSpec& spec) {
  vk::ShaderModuleCreateInfo moduleInfo{vk::STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, nullptr, 0, spec.code.size() * 4, spec.code.data()};
  vk::PushConstantRange range{vk::SHADER_STAGE_COMPUTE_BIT, 0, spec.pushBytes};
  vk::PipelineLayoutCreateInfo layoutInfo{vk::STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, nullptr, 0, 0, nullptr, spec.pushBytes ? 1u : 0u, &range};
  std::vector<vk::SpecializationMapEntry> entries;
  std::vector<uint32_t> values;
  for (size_t i = 0; i < spec.constants.size(); i += 2) {
    entries.push_back({spec.constants[i], static_cast<uint32_t>(values.size() * 4), 4});
    values.push_back(spec.constants[i + 1]);
  }
  vk::SpecializationInfo constants{static_cast<uint32_t>(entries.size()), entries.data(), values.size() * 4, values.data()};
  vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup{vk::STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO, nullptr, spec.subgroupSize};

  c.check(c.fn.CreatePipelineLayout(c.device, &layoutInfo, nullptr, &p.layout), "vkCreatePipelineLayout");
  vk::ShaderModule module = nullptr;
  c.check(c.fn.CreateShaderModule(c.device, &moduleInfo, nullptr, &module), "vkCreateShaderModule");
  vk::ComputePipelineCreateInfo info{};
  if (spec.subgroupSize) {
    info.stage.pNext = &subgroup;
    if (c.fullSubgroups) info.stage.flags = vk::PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  info.stage.stage = vk::SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  if (!entries.empty()) info.stage.pSpecializationInfo = &constants;
  info.layout = p.layout;
  const vk::Result result = c.fn.CreateComputePipelines(c.device, c.pipelineCache, 1, &info, nullptr, &p.pipeline);
  c.fn.DestroyShaderModule(c.device, module, nullptr);
  if (result < 0) p.pipeline = nullptr;
  c.check(result, "vkCreateComputePipelines");
  p.pushBytes = spec.pushBytes;
}

// The pipeline stands in the table from the start, not ready, so that closing the device finds it.
struct Compilation : Napi::AsyncWorker {
  Context& context;
  PipelineSpec spec;
  std::shared_ptr<PipelineObject> pipeline;
  uint32_t id;
  uint64_t generation;
  Napi::Promise::Deferred deferred;
  Failure failure;

  Compilation(Context& c, PipelineSpec s) : AsyncWorker(c.env), context(c), spec(std::move(s)), pipeline(std::make_shared<PipelineObject>(c)), id(0), generation(c.generation), deferred(c.env) {
    id = remember(c.pipelines, pipeline);
  }

  void Execute() override {
    {
      std::lock_guard<std::mutex> lock(context.compileMutex);
      if (generation != context.generation) return;
      context.compiling++;
    }
    try {
      build(context, *pipeline, spec);
    } catch (const Failure& f) {
      failure = f;
    } catch (const std::exception& e) {
      failure = {"OUT_OF_HOST_MEMORY", e.what()};
    }
    std::lock_guard<std::mutex> lock(context.compileMutex);
    context.compiling--;
    context.compileDone.notify_all();
  }

  void OnOK() override {
    Napi::HandleScope scope(Env());
    const bool closed = generation != context.generation;
    if (closed) failure = {"DEVICE_CLOSED", "the device was closed"};
    if (failure.code.empty()) {
      pipeline->ready = true;
      deferred.Resolve(Napi::Number::New(Env(), id));
      return;
    }
    if (!closed) context.pipelines[id].reset();
    deferred.Reject(codedError(Env(), failure.code, failure.message).Value());
  }
};

}  // namespace

void PipelineObject::release() {
  context.drop(pipeline, context.fn.DestroyPipeline);
  context.drop(layout, context.fn.DestroyPipelineLayout);
}

std::shared_ptr<PipelineObject> Context::pipelineAt(uint32_t id) {
  if (!entryAt(pipelines, id, "pipeline")->ready) throw Failure{"BAD_ID", "pipeline " + std::to_string(id) + " is being made"};
  return pipelines[id];
}

Napi::Value createPipeline(Context& c, const Info& info) {
  const PipelineSpec spec = specOf(c, info);
  auto pipeline = std::make_shared<PipelineObject>(c);
  build(c, *pipeline, spec);
  pipeline->ready = true;
  return number(c.env, remember(c.pipelines, pipeline));
}

Napi::Value createPipelineAsync(Context& c, const Info& info) {
  auto* compilation = new Compilation(c, specOf(c, info));
  const Napi::Promise promise = compilation->deferred.Promise();
  compilation->Queue();
  return promise;
}

Napi::Value destroyPipeline(Context& c, const Info& info) {
  c.requireOpen();
  const uint32_t id = uint32Argument(info[0], "pipeline");
  auto pipeline = c.pipelineAt(id);
  c.pipelines[id].reset();
  c.retire(std::move(pipeline));
  return info.Env().Undefined();
}

Napi::Value pipelineCacheData(Context& c, const Info& info) {
  c.requireDevice();
  size_t size = 0;
  c.check(c.fn.GetPipelineCacheData(c.device, c.pipelineCache, &size, nullptr), "vkGetPipelineCacheData");
  // Compilations on other threads may make it grow in between: what is incomplete is still valid.
  std::vector<uint8_t> data(size);
  c.check(c.fn.GetPipelineCacheData(c.device, c.pipelineCache, &size, data.data()), "vkGetPipelineCacheData");
  Napi::Uint8Array out = Napi::Uint8Array::New(info.Env(), size);
  if (size) std::memcpy(out.Data(), data.data(), size);
  return out;
}
