// Loader, instance, device: finding, opening, describing, closing.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "context.h"
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#if defined(__linux__)
#include <link.h>
#endif
#endif

namespace {

#if defined(_WIN32)
void* openLibrary(const char* name) { return reinterpret_cast<void*>(LoadLibraryA(name)); }
void* symbolOf(void* library, const char* name) { return reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), name)); }
#else
void* openLibrary(const char* name) { return dlopen(name, RTLD_NOW | RTLD_LOCAL); }
void* symbolOf(void* library, const char* name) { return dlsym(library, name); }
#endif

std::vector<std::string> loadedLibraries() {
  std::vector<std::string> names;
#if defined(__linux__)
  dl_iterate_phdr([](dl_phdr_info* info, size_t, void* out) { return static_cast<std::vector<std::string>*>(out)->emplace_back(info->dlpi_name), 0; }, &names);
#endif
  return names;
}

// The driver stays loaded until the process ends. On Linux that takes all libraries that came since the loader was opened: NVIDIA's use static thread-local
// storage, which is scarce and does not come back when a library goes, so that after a few instances the loader would find no driver.
void keepDriver(Context& c) {
#if defined(_WIN32)
  HMODULE module;
  if (c.fn.QueueSubmit2) GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, reinterpret_cast<LPCSTR>(c.fn.QueueSubmit2), &module);
#else
  for (const std::string& name : loadedLibraries())
    if (!std::count(c.librariesBefore.begin(), c.librariesBefore.end(), name)) dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

struct Options {
  bool validation = false;
  bool sync = false;
  std::string loader;
  uint64_t loseAfter = UINT64_MAX;
  Napi::Value cache;
};

Options optionsOf(const Napi::Value& value) {
  Options options;
  if (value.IsUndefined()) return options;
  if (!value.IsObject()) throw Failure{"BAD_ARGUMENT", "options must be an object"};
  const Napi::Object object = value.As<Napi::Object>();
  options.validation = object.Get("validation").ToBoolean();
  options.sync = object.Get("sync").ToBoolean();
  if (object.Get("loader").IsString()) options.loader = object.Get("loader").As<Napi::String>().Utf8Value();
  if (!object.Get("loseAfter").IsUndefined()) options.loseAfter = integerArgument(object.Get("loseAfter"), "loseAfter");
  options.cache = object.Get("cache");
  return options;
}

void loadLibrary(Context& c, const std::string& loader) {
  if (c.library) return;
  c.librariesBefore = loadedLibraries();
#if defined(_WIN32)
  const std::vector<std::string> names{"vulkan-1.dll"};
#elif defined(__APPLE__)
  const std::vector<std::string> names{"libvulkan.1.dylib", "libvulkan.dylib", "libMoltenVK.dylib"};
#else
  const std::vector<std::string> names{"libvulkan.so.1", "libvulkan.so"};
#endif
  for (const std::string& name : loader.empty() ? names : std::vector<std::string>{loader})
    if ((c.library = openLibrary(name.c_str()))) break;
  if (!c.library) throw Failure{"NO_VULKAN_LOADER", "no Vulkan loader (" + (loader.empty() ? names[0] : loader) + ")"};
  c.fn.GetInstanceProcAddr = reinterpret_cast<vk::GetInstanceProcAddrFunction>(symbolOf(c.library, "vkGetInstanceProcAddr"));
  if (!c.fn.GetInstanceProcAddr) {
    c.library = nullptr;
    throw Failure{"NO_VULKAN_LOADER", "the Vulkan loader lacks vkGetInstanceProcAddr"};
  }
}

uint32_t loaderVersion(Context& c) {
  uint32_t version = 1u << 22;
  if (c.fn.EnumerateInstanceVersion) c.fn.EnumerateInstanceVersion(&version);
  return version;
}

// LOAD leaves functions of extensions null; NEED throws for a missing one.
#define LOAD(name, result, arguments) c.fn.name = reinterpret_cast<result(VK_CALL*) arguments>(load("vk" #name));
#define NEED(name, result, arguments) \
  if (!c.fn.name) throw Failure{missing, "Vulkan lacks vk" #name};

void resolveGlobal(Context& c) {
  using namespace vk;
  const auto load = [&c](const char* name) { return c.fn.GetInstanceProcAddr(nullptr, name); };
  VK_GLOBAL_FUNCTIONS(LOAD)
  if (!c.fn.CreateInstance || loaderVersion(c) < API_VERSION_1_3) throw Failure{"VULKAN_TOO_OLD", "the Vulkan loader is older than version 1.3"};
}

void resolveInstance(Context& c) {
  using namespace vk;
  const auto load = [&c](const char* name) { return c.fn.GetInstanceProcAddr(c.instance, name); };
  const char* missing = "VULKAN_TOO_OLD";
  VK_INSTANCE_FUNCTIONS(LOAD)
  VK_INSTANCE_EXTENSION_FUNCTIONS(LOAD)
  VK_INSTANCE_FUNCTIONS(NEED)
}

void resolveDevice(Context& c) {
  using namespace vk;
  const auto load = [&c](const char* name) { return c.fn.GetDeviceProcAddr(c.device, name); };
  const char* missing = "VULKAN_FEATURES";
  VK_DEVICE_FUNCTIONS(LOAD)
  VK_DEVICE_EXTENSION_FUNCTIONS(LOAD)
  VK_DEVICE_FUNCTIONS(NEED)
}
#undef LOAD
#undef NEED

// Vulkan's lists come in two calls: how many, then which.
template <class T, class Call>
std::vector<T> listOf(Call call) {
  uint32_t count = 0;
  call(&count, nullptr);
  std::vector<T> list(count);
  if (count) call(&count, list.data());
  list.resize(count);
  return list;
}

// Errors are printed at once and the call that caused them is skipped: drivers may crash right after.
vk::Bool32 VK_CALL onMessage(vk::Flags severity, vk::Flags, const vk::DebugUtilsMessengerCallbackDataEXT* data, void* user) {
  const bool error = severity >= vk::DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  try {
    Context& c = *static_cast<Context*>(user);
    const std::string text = std::string(error ? "error " : "warning ") + (data->pMessageIdName ? data->pMessageIdName : "") + ": " + (data->pMessage ? data->pMessage : "");
    std::fprintf(stderr, "Vulkan validation %s\n", text.c_str());
    std::lock_guard<std::mutex> lock(c.messageMutex);
    c.messages.push_back(text);
  } catch (...) {}  // Out of memory while reporting: the message is lost, the process is not.
  return error ? 1 : 0;
}

void requireValidationLayer(Context& c) {
  for (const auto& layer : listOf<vk::LayerProperties>([&c](uint32_t* n, vk::LayerProperties* p) { c.check(c.fn.EnumerateInstanceLayerProperties(n, p), "vkEnumerateInstanceLayerProperties"); }))
    if (!std::strcmp(layer.layerName, "VK_LAYER_KHRONOS_validation")) return;
  throw Failure{"NO_VALIDATION_LAYER", "VK_LAYER_KHRONOS_validation is not installed"};
}

void createInstance(Context& c, const Options& options) {
  loadLibrary(c, options.loader);
  resolveGlobal(c);
  vk::ApplicationInfo application{vk::STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "mlx-vk", 0, nullptr, 0, vk::API_VERSION_1_3};
  vk::InstanceCreateInfo info{};
  info.pApplicationInfo = &application;
  const char* layer = "VK_LAYER_KHRONOS_validation";
  const char* extensions[] = {"VK_EXT_debug_utils", "VK_EXT_validation_features"};
  const int32_t enabled = vk::VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
  vk::ValidationFeaturesEXT features{vk::STRUCTURE_TYPE_VALIDATION_FEATURES_EXT, nullptr, options.sync ? 1u : 0u, &enabled, 0, nullptr};
  if (options.validation) {
    requireValidationLayer(c);
    info.pNext = &features;
    info.enabledLayerCount = 1;
    info.ppEnabledLayerNames = &layer;
    info.enabledExtensionCount = 2;
    info.ppEnabledExtensionNames = extensions;
  }
  const vk::Result result = c.fn.CreateInstance(&info, nullptr, &c.instance);
  if (result == vk::ERROR_INCOMPATIBLE_DRIVER) throw Failure{"NO_VULKAN_DRIVER", "the Vulkan loader found no driver"};
  c.check(result, "vkCreateInstance");
  resolveInstance(c);
  if (!options.validation || !c.fn.CreateDebugUtilsMessengerEXT) return;
  vk::DebugUtilsMessengerCreateInfoEXT debug{};
  debug.messageSeverity = vk::DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  debug.messageType = vk::DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
  debug.pfnUserCallback = onMessage;
  debug.pUserData = &c;
  c.check(c.fn.CreateDebugUtilsMessengerEXT(c.instance, &debug, nullptr, &c.messenger), "vkCreateDebugUtilsMessengerEXT");
}

void destroyInstance(Context& c) {
  if (!c.instance) return;
  keepDriver(c);
  if (c.messenger) c.fn.DestroyDebugUtilsMessengerEXT(c.instance, c.messenger, nullptr);
  if (c.fn.DestroyInstance) c.fn.DestroyInstance(c.instance, nullptr);
  c.messenger = nullptr;
  c.instance = nullptr;
}

std::vector<vk::PhysicalDevice> physicalDevices(Context& c) {
  return listOf<vk::PhysicalDevice>([&c](uint32_t* n, vk::PhysicalDevice* p) { c.check(c.fn.EnumeratePhysicalDevices(c.instance, n, p), "vkEnumeratePhysicalDevices"); });
}

std::string hex(const uint8_t* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < 2 * count; i++) text += "0123456789abcdef"[bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
  return text;
}

struct Properties {
  vk::PhysicalDeviceExternalMemoryHostPropertiesEXT host{vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT, nullptr, 0};
  vk::PhysicalDeviceVulkan13Properties v13{};
  vk::PhysicalDeviceVulkan12Properties v12{};
  vk::PhysicalDeviceVulkan11Properties v11{};
  vk::PhysicalDeviceProperties2 all{};
  Properties(Context& c, vk::PhysicalDevice device, bool hostImport) {
    all.pNext = &v11;
    v11.pNext = &v12;
    v12.pNext = &v13;
    if (hostImport) v13.pNext = &host;
    c.fn.GetPhysicalDeviceProperties2(device, &all);
  }
};

// Structures of extensions are chained only when the device has the extension.
struct Features {
  vk::PhysicalDeviceShaderBfloat16FeaturesKHR bfloat16{};
  vk::PhysicalDeviceCooperativeMatrixFeaturesKHR matrix{};
  vk::PhysicalDeviceVulkan13Features v13{};
  vk::PhysicalDeviceVulkan12Features v12{};
  vk::PhysicalDeviceVulkan11Features v11{};
  vk::PhysicalDeviceFeatures2 all{};
  Features(bool cooperative, bool bfloat) {
    all.pNext = &v11;
    v11.pNext = &v12;
    v12.pNext = &v13;
    if (cooperative) v13.pNext = &matrix;
    if (bfloat) (cooperative ? matrix.pNext : v13.pNext) = &bfloat16;
  }
  Features(const Features&) = delete;
  Features& operator=(const Features&) = delete;
};

#define FEATURES(X) \
  X(all.features, shaderFloat64) X(all.features, shaderInt64) X(all.features, shaderInt16) X(v11, storageBuffer16BitAccess) X(v12, storageBuffer8BitAccess) X(v12, shaderFloat16) \
  X(v12, shaderInt8) X(v12, scalarBlockLayout) X(v12, shaderSubgroupExtendedTypes) X(v12, timelineSemaphore) X(v12, bufferDeviceAddress) X(v12, vulkanMemoryModel) \
  X(v12, vulkanMemoryModelDeviceScope) X(v13, subgroupSizeControl) X(v13, computeFullSubgroups) X(v13, synchronization2) X(v13, shaderIntegerDotProduct) X(v13, maintenance4)
// Of extensions: enabled where the device has them; kernels that use them need the memory model too.
#define EXTENSION_FEATURES(X) X(matrix, cooperativeMatrix) X(bfloat16, shaderBFloat16Type) X(bfloat16, shaderBFloat16DotProduct) X(bfloat16, shaderBFloat16CooperativeMatrix)

Napi::Object numbers(Napi::Env env, const std::vector<std::pair<const char*, double>>& values) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& value : values) out.Set(value.first, value.second);
  return out;
}

Napi::Object identity(Napi::Env env, const Properties& p) {
  const vk::PhysicalDeviceProperties& base = p.all.properties;
  Napi::Object out = numbers(
      env, {{"type", base.deviceType}, {"apiVersion", base.apiVersion}, {"driverVersion", base.driverVersion}, {"vendorId", base.vendorID}, {"deviceId", base.deviceID}});
  out.Set("name", std::string(base.deviceName));
  out.Set("driver", std::string(p.v12.driverName) + " " + p.v12.driverInfo);
  out.Set("uuid", hex(p.v11.deviceUUID, 16));
  out.Set("cacheUuid", hex(base.pipelineCacheUUID, 16));
  return out;
}

Napi::Array deviceList(Context& c) {
  const auto devices = physicalDevices(c);
  Napi::Array list = Napi::Array::New(c.env, devices.size());
  for (uint32_t i = 0; i < devices.size(); i++) list.Set(i, identity(c.env, Properties(c, devices[i], false)));
  return list;
}

Napi::Array cooperativeShapes(Context& c) {
  using Shape = vk::CooperativeMatrixPropertiesKHR;
  Napi::Array list = Napi::Array::New(c.env);
  if (!c.fn.GetPhysicalDeviceCooperativeMatrixPropertiesKHR) return list;
  const auto shapes = listOf<Shape>([&c](uint32_t* n, Shape* p) {
    if (c.fn.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(c.physical, n, p) < 0) *n = 0;
  });
  for (const Shape& s : shapes) {
    list.Set(list.Length(), numbers(c.env, {{"m", s.MSize}, {"n", s.NSize}, {"k", s.KSize}, {"a", s.AType}, {"b", s.BType}, {"c", s.CType}, {"result", s.ResultType}, {"scope", s.scope}}));
  }
  return list;
}

Napi::Object limitsOf(Context& c, const Properties& p) {
  Napi::Object limits = numbers(
      c.env, {{"pushConstantBytes", c.limits.maxPushConstantsSize}, {"sharedMemoryBytes", c.limits.maxComputeSharedMemorySize}, {"groupInvocations", c.limits.maxComputeWorkGroupInvocations},
              {"bufferBytes", static_cast<double>(c.maxBufferSize)}, {"allocationBytes", static_cast<double>(p.v11.maxMemoryAllocationSize)}, {"allocations", c.limits.maxMemoryAllocationCount},
              {"importAlignment", static_cast<double>(c.importAlignment)}, {"timestampPeriod", c.timestampBits ? c.limits.timestampPeriod : 0}});
  Napi::Array counts = Napi::Array::New(c.env, 3);
  for (uint32_t i = 0; i < 3; i++) counts.Set(i, c.limits.maxComputeWorkGroupCount[i]);
  limits.Set("groupCount", counts);
  return limits;
}

Napi::Object featuresOf(Context& c, const Properties& p, const Features& f) {
  Napi::Object features = Napi::Object::New(c.env);
#define X(part, name) features.Set(#name, f.part.name != 0);
  FEATURES(X)
#undef X
  const bool cooperative = f.matrix.cooperativeMatrix && f.v12.vulkanMemoryModel;
  const std::pair<const char*, bool> values[] = {
      {"signedZeroInfNanPreserveFloat32", p.v12.shaderSignedZeroInfNanPreserveFloat32}, {"signedZeroInfNanPreserveFloat64", p.v12.shaderSignedZeroInfNanPreserveFloat64},
      {"denormPreserveFloat32", p.v12.shaderDenormPreserveFloat32}, {"denormPreserveFloat64", p.v12.shaderDenormPreserveFloat64},
      {"memoryBudget", c.budget}, {"hostImport", c.importAlignment != 0}, {"cooperativeMatrix", cooperative},
      {"bfloat16", cooperative && f.bfloat16.shaderBFloat16Type && f.bfloat16.shaderBFloat16CooperativeMatrix}};
  for (const auto& value : values) features.Set(value.first, value.second);
  return features;
}

Napi::Object describe(Context& c, const Properties& p, const Features& f) {
  Napi::Object out = identity(c.env, p);
  out.Set("limits", limitsOf(c, p));
  const Napi::Object features = featuresOf(c, p, f);
  out.Set("features", features);
  out.Set("subgroup", numbers(c.env, {{"size", p.v11.subgroupSize}, {"min", c.minSubgroup}, {"max", c.maxSubgroup}, {"operations", p.v11.subgroupSupportedOperations}}));
  bool discrete = false;
  for (uint32_t i = 0; i < c.heaps.memoryHeapCount; i++) discrete |= !(c.heaps.memoryHeaps[i].flags & vk::MEMORY_HEAP_DEVICE_LOCAL_BIT);
  const bool direct = memoryType(c, UINT32_MAX, directMemory, 0) >= 0;
  out.Set("unified", direct && !discrete);
  out.Set("directUpload", direct);
  out.Set("cooperativeMatrix", features.Get("cooperativeMatrix").ToBoolean() ? cooperativeShapes(c) : Napi::Array::New(c.env));
  return out;
}

// A family with compute and without graphics where there is one.
uint32_t computeFamily(Context& c) {
  using Family = vk::QueueFamilyProperties;
  const auto families = listOf<Family>([&c](uint32_t* n, Family* p) { c.fn.GetPhysicalDeviceQueueFamilyProperties(c.physical, n, p); });
  for (const bool graphics : {false, true}) {
    for (uint32_t i = 0; i < families.size(); i++) {
      const vk::Flags flags = families[i].queueFlags;
      if (!(flags & vk::QUEUE_COMPUTE_BIT) || (!graphics && (flags & vk::QUEUE_GRAPHICS_BIT))) continue;
      c.timestampBits = families[i].timestampValidBits;
      return i;
    }
  }
  throw Failure{"VULKAN_FEATURES", "the device has no compute queue"};
}

void createDeviceObjects(Context& c, uint32_t family, const Options& options) {
  c.fn.GetDeviceQueue(c.device, family, 0, &c.queue);
  vk::SemaphoreTypeCreateInfo type{vk::STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, nullptr, vk::SEMAPHORE_TYPE_TIMELINE, 0};
  vk::SemaphoreCreateInfo semaphore{vk::STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, &type, 0};
  c.check(c.fn.CreateSemaphore(c.device, &semaphore, nullptr, &c.timeline), "vkCreateSemaphore");
  vk::CommandPoolCreateInfo pool{vk::STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, nullptr, vk::COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT, family};
  c.check(c.fn.CreateCommandPool(c.device, &pool, nullptr, &c.commandPool), "vkCreateCommandPool");
  vk::PipelineCacheCreateInfo cache{vk::STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, nullptr, 0, 0, nullptr};
  if (!options.cache.IsEmpty() && !options.cache.IsUndefined()) {
    const Bytes bytes = bytesArgument(options.cache, "cache");
    cache.initialDataSize = bytes.size;
    cache.pInitialData = bytes.data;
  }
  c.check(c.fn.CreatePipelineCache(c.device, &cache, nullptr, &c.pipelineCache), "vkCreatePipelineCache");
  if (!c.timestampBits) return;
  vk::QueryPoolCreateInfo query{vk::STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, nullptr, 0, vk::QUERY_TYPE_TIMESTAMP, queryCount, 0};
  c.check(c.fn.CreateQueryPool(c.device, &query, nullptr, &c.queryPool), "vkCreateQueryPool");
}

Napi::Object createDevice(Context& c, const Options& options) {
  using Extension = vk::ExtensionProperties;
  const auto available = listOf<Extension>([&c](uint32_t* n, Extension* p) { c.check(c.fn.EnumerateDeviceExtensionProperties(c.physical, nullptr, n, p), "vkEnumerateDeviceExtensionProperties"); });
  std::vector<const char*> extensions;
  const auto enable = [&](const char* name) {
    const bool found = std::any_of(available.begin(), available.end(), [name](const Extension& e) { return !std::strcmp(e.extensionName, name); });
    if (found) extensions.push_back(name);
    return found;
  };
  const bool hostImport = enable("VK_EXT_external_memory_host"), cooperative = enable("VK_KHR_cooperative_matrix"), bfloat = enable("VK_KHR_shader_bfloat16");
  c.budget = enable("VK_EXT_memory_budget");

  const Properties properties(c, c.physical, hostImport);
  if (properties.all.properties.apiVersion < vk::API_VERSION_1_3) throw Failure{"VULKAN_TOO_OLD", std::string(properties.all.properties.deviceName) + " offers less than Vulkan 1.3"};
  Features has(cooperative, bfloat), wanted(cooperative, bfloat);
  c.fn.GetPhysicalDeviceFeatures2(c.physical, &has.all);
  if (!has.v12.timelineSemaphore || !has.v12.bufferDeviceAddress || !has.v13.synchronization2)
    throw Failure{"VULKAN_FEATURES", std::string(properties.all.properties.deviceName) + " lacks timeline semaphores, buffer device addresses or synchronization2"};
#define X(part, name) wanted.part.name = has.part.name;
  FEATURES(X)
  EXTENSION_FEATURES(X)
#undef X

  c.limits = properties.all.properties.limits;
  c.maxBufferSize = properties.v13.maxBufferSize;
  c.importAlignment = hostImport ? properties.host.minImportedHostPointerAlignment : 0;
  c.minSubgroup = properties.v13.minSubgroupSize;
  c.maxSubgroup = properties.v13.maxSubgroupSize;
  c.subgroupControl = has.v13.subgroupSizeControl != 0;
  c.fullSubgroups = has.v13.computeFullSubgroups != 0;
  vk::PhysicalDeviceMemoryProperties2 memory{};
  c.fn.GetPhysicalDeviceMemoryProperties2(c.physical, &memory);
  c.heaps = memory.memoryProperties;

  const uint32_t family = computeFamily(c);
  const float priority = 1;
  vk::DeviceQueueCreateInfo queue{vk::STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, family, 1, &priority};
  vk::DeviceCreateInfo info{};
  info.pNext = &wanted.all;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();
  c.check(c.fn.CreateDevice(c.physical, &info, nullptr, &c.device), "vkCreateDevice");
  resolveDevice(c);
  createDeviceObjects(c, family, options);
  c.loseAfter = options.loseAfter;
  return describe(c, properties, has);
}

}  // namespace

Napi::Value probe(Context& c, const Info& info) {
  Napi::Object out = Napi::Object::New(c.env);
  const bool temporary = !c.instance;
  try {
    if (temporary) createInstance(c, optionsOf(info[0]));
    out.Set("ok", true);
    out.Set("loader", loaderVersion(c));
    out.Set("devices", deviceList(c));
  } catch (const Failure& failure) {
    out.Set("ok", false);
    out.Set("code", failure.code);
    out.Set("message", failure.message);
  }
  if (temporary) destroyInstance(c);
  return out;
}

Napi::Value openDevice(Context& c, const Info& info) {
  if (c.device) throw Failure{"DEVICE_OPEN", "a device is open already"};
  const uint32_t index = uint32Argument(info[0], "index");
  const Options options = optionsOf(info[1]);
  try {
    createInstance(c, options);
    const auto devices = physicalDevices(c);
    if (index >= devices.size()) throw Failure{"NO_VULKAN_DEVICE", "device " + std::to_string(index) + " of " + std::to_string(devices.size())};
    c.physical = devices[index];
    return createDevice(c, options);
  } catch (...) {
    c.close(false);
    throw;
  }
}

Napi::Value closeDevice(Context& c, const Info& info) {
  c.close(true);
  return info.Env().Undefined();
}

Napi::Value memoryInfo(Context& c, const Info& info) {
  c.requireDevice();
  vk::PhysicalDeviceMemoryBudgetPropertiesEXT budget{};
  vk::PhysicalDeviceMemoryProperties2 memory{};
  if (c.budget) memory.pNext = &budget;
  c.fn.GetPhysicalDeviceMemoryProperties2(c.physical, &memory);
  const uint32_t heaps = memory.memoryProperties.memoryHeapCount;
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), 3 * heaps);
  for (uint32_t i = 0; i < heaps; i++) {
    const double size = static_cast<double>(memory.memoryProperties.memoryHeaps[i].size);
    out[3 * i] = size;
    out[3 * i + 1] = c.budget ? static_cast<double>(budget.heapBudget[i]) : size;
    out[3 * i + 2] = c.budget ? static_cast<double>(budget.heapUsage[i]) : 0;
  }
  return out;
}

Napi::Value takeMessages(Context& c, const Info& info) {
  std::lock_guard<std::mutex> lock(c.messageMutex);
  Napi::Array out = Napi::Array::New(info.Env(), c.messages.size());
  for (uint32_t i = 0; i < c.messages.size(); i++) out.Set(i, c.messages[i]);
  c.messages.clear();
  return out;
}

void Context::requireOpen() const { if (!device) throw Failure{"DEVICE_NOT_OPEN", "no device is open"}; }

void Context::requireDevice() const {
  requireOpen();
  if (lost) throw Failure{"DEVICE_LOST", "the device is lost"};
}

Failure failureOf(vk::Result result, const char* what) {
  const bool memory = result == vk::ERROR_OUT_OF_DEVICE_MEMORY || result == vk::ERROR_TOO_MANY_OBJECTS;
  const char* code = memory ? "OUT_OF_DEVICE_MEMORY" : result == vk::ERROR_DEVICE_LOST ? "DEVICE_LOST" : result == vk::ERROR_OUT_OF_HOST_MEMORY ? "OUT_OF_HOST_MEMORY" : "VULKAN_ERROR";
  return {code, std::string(what) + " failed with VkResult " + std::to_string(result)};
}

void Context::check(vk::Result result, const char* what) {
  if (result >= 0) return;
  if (result == vk::ERROR_DEVICE_LOST) lost = true;
  throw failureOf(result, what);
}

void Context::close(bool javascript) {
  {
    // Compilations that have not begun see the new generation and stop.
    std::unique_lock<std::mutex> lock(compileMutex);
    generation++;
    compileDone.wait(lock, [this] { return compiling == 0; });
  }
  if (device && fn.DeviceWaitIdle && queue) fn.DeviceWaitIdle(device);
  stopWaiter(javascript);
  inFlight.clear();
  recorded.clear();
  freeBuffers.clear();
  for (auto& b : buffers)
    if (javascript && b && !b->view.IsEmpty()) napi_detach_arraybuffer(env, b->view.Value());
  buffers.clear();
  for (auto& p : pipelines)
    if (p) p->release();
  pipelines.clear();
  drop(queryPool, fn.DestroyQueryPool);
  drop(pipelineCache, fn.DestroyPipelineCache);
  drop(commandPool, fn.DestroyCommandPool);
  drop(timeline, fn.DestroySemaphore);
  if (device && fn.DestroyDevice) fn.DestroyDevice(device, nullptr);
  queue = nullptr;
  device = nullptr;
  physical = nullptr;
  destroyInstance(*this);
  submitted = 0;
  loseAfter = UINT64_MAX;
  lost = false;
}
