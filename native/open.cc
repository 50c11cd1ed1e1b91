// Loader, instance, device: finding, opening, describing, closing.
#include <cstdio>
#include <cstring>

#include "context.h"
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace {

void* openLibrary(const std::string& name) {
#if defined(_WIN32)
  return reinterpret_cast<void*>(LoadLibraryA(name.c_str()));
#else
  return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
#endif
}

vk::GetInstanceProcAddrFunction entryOf(void* library) {
#if defined(_WIN32)
  return reinterpret_cast<vk::GetInstanceProcAddrFunction>(reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), "vkGetInstanceProcAddr")));
#else
  return reinterpret_cast<vk::GetInstanceProcAddrFunction>(dlsym(library, "vkGetInstanceProcAddr"));
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
#if defined(_WIN32)
  const std::vector<std::string> names{"vulkan-1.dll"};
#elif defined(__APPLE__)
  const std::vector<std::string> names{"libvulkan.1.dylib", "libvulkan.dylib", "libMoltenVK.dylib"};
#else
  const std::vector<std::string> names{"libvulkan.so.1", "libvulkan.so"};
#endif
  for (const std::string& name : loader.empty() ? names : std::vector<std::string>{loader})
    if ((c.library = openLibrary(name))) break;
  if (!c.library) throw Failure{"NO_VULKAN_LOADER", "no Vulkan loader (" + (loader.empty() ? names[0] : loader) + ")"};
  c.fn.GetInstanceProcAddr = entryOf(c.library);
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

void resolveGlobal(Context& c) {
  using namespace vk;
#define X(name, result, arguments) c.fn.name = reinterpret_cast<decltype(c.fn.name)>(c.fn.GetInstanceProcAddr(nullptr, "vk" #name));
  VK_GLOBAL_FUNCTIONS(X)
#undef X
  if (!c.fn.CreateInstance || loaderVersion(c) < API_VERSION_1_3) throw Failure{"VULKAN_TOO_OLD", "the Vulkan loader is older than version 1.3"};
}

void resolveInstance(Context& c) {
  using namespace vk;
#define X(name, result, arguments) c.fn.name = reinterpret_cast<decltype(c.fn.name)>(c.fn.GetInstanceProcAddr(c.instance, "vk" #name));
  VK_INSTANCE_FUNCTIONS(X)
  VK_INSTANCE_EXTENSION_FUNCTIONS(X)
#undef X
#define X(name, result, arguments) \
  if (!c.fn.name) throw Failure{"VULKAN_TOO_OLD", "the Vulkan loader lacks vk" #name};
  VK_INSTANCE_FUNCTIONS(X)
#undef X
}

// Missing functions are an error; those of extensions stay null.
void resolveDevice(Context& c) {
  using namespace vk;
#define X(name, result, arguments) c.fn.name = reinterpret_cast<decltype(c.fn.name)>(c.fn.GetDeviceProcAddr(c.device, "vk" #name));
  VK_DEVICE_FUNCTIONS(X)
  VK_DEVICE_EXTENSION_FUNCTIONS(X)
#undef X
#define X(name, result, arguments) \
  if (!c.fn.name) throw Failure{"VULKAN_FEATURES", "the driver lacks vk" #name};
  VK_DEVICE_FUNCTIONS(X)
#undef X
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
  } catch (...) {
    // Out of memory while reporting: the message is lost, the process is not.
  }
  return error ? 1 : 0;
}

void requireValidationLayer(Context& c) {
  uint32_t count = 0;
  c.fn.EnumerateInstanceLayerProperties(&count, nullptr);
  std::vector<vk::LayerProperties> layers(count);
  c.fn.EnumerateInstanceLayerProperties(&count, layers.data());
  for (const auto& layer : layers)
    if (!std::strcmp(layer.layerName, "VK_LAYER_KHRONOS_validation")) return;
  throw Failure{"NO_VALIDATION_LAYER", "VK_LAYER_KHRONOS_validation is not installed"};
}

void createInstance(Context& c, const Options& options) {
  loadLibrary(c, options.loader);
  resolveGlobal(c);
  vk::ApplicationInfo application{vk::STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "mlx-vk", 0, nullptr, 0, vk::API_VERSION_1_3};
  vk::InstanceCreateInfo info{};
  info.sType = vk::STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
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
  debug.sType = vk::STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  debug.messageSeverity = vk::DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  debug.messageType = vk::DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | vk::DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
  debug.pfnUserCallback = onMessage;
  debug.pUserData = &c;
  c.check(c.fn.CreateDebugUtilsMessengerEXT(c.instance, &debug, nullptr, &c.messenger), "vkCreateDebugUtilsMessengerEXT");
}

void destroyInstance(Context& c) {
  if (!c.instance) return;
  if (c.messenger) c.fn.DestroyDebugUtilsMessengerEXT(c.instance, c.messenger, nullptr);
  if (c.fn.DestroyInstance) c.fn.DestroyInstance(c.instance, nullptr);
  c.messenger = nullptr;
  c.instance = nullptr;
}

std::vector<vk::PhysicalDevice> physicalDevices(Context& c) {
  uint32_t count = 0;
  c.check(c.fn.EnumeratePhysicalDevices(c.instance, &count, nullptr), "vkEnumeratePhysicalDevices");
  std::vector<vk::PhysicalDevice> devices(count);
  if (count) c.check(c.fn.EnumeratePhysicalDevices(c.instance, &count, devices.data()), "vkEnumeratePhysicalDevices");
  devices.resize(count);
  return devices;
}

std::string hex(const uint8_t* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; i++) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", bytes[i]);
    text += pair;
  }
  return text;
}

struct Properties {
  vk::PhysicalDeviceExternalMemoryHostPropertiesEXT host{vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT, nullptr, 0};
  vk::PhysicalDeviceVulkan13Properties v13{};
  vk::PhysicalDeviceVulkan12Properties v12{};
  vk::PhysicalDeviceVulkan11Properties v11{};
  vk::PhysicalDeviceProperties2 all{};
  Properties(Context& c, vk::PhysicalDevice device, bool hostImport) {
    v13.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES;
    v12.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
    v11.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES;
    all.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    all.pNext = &v11;
    v11.pNext = &v12;
    v12.pNext = &v13;
    if (hostImport) v13.pNext = &host;
    c.fn.GetPhysicalDeviceProperties2(device, &all);
  }
};

struct Features {
  vk::PhysicalDeviceVulkan13Features v13{};
  vk::PhysicalDeviceVulkan12Features v12{};
  vk::PhysicalDeviceVulkan11Features v11{};
  vk::PhysicalDeviceFeatures2 all{};
  Features() {
    v13.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    v12.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    v11.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    all.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    all.pNext = &v11;
    v11.pNext = &v12;
    v12.pNext = &v13;
  }
  Features(const Features&) = delete;
  Features& operator=(const Features&) = delete;
};

#define FEATURES(X) \
  X(all.features, shaderFloat64) X(all.features, shaderInt64) X(all.features, shaderInt16) X(v11, storageBuffer16BitAccess) X(v12, storageBuffer8BitAccess) X(v12, shaderFloat16) \
  X(v12, shaderInt8) X(v12, scalarBlockLayout) X(v12, shaderSubgroupExtendedTypes) X(v12, timelineSemaphore) X(v12, bufferDeviceAddress) X(v12, vulkanMemoryModel) \
  X(v12, vulkanMemoryModelDeviceScope) X(v13, subgroupSizeControl) X(v13, computeFullSubgroups) X(v13, synchronization2) X(v13, shaderIntegerDotProduct) X(v13, maintenance4)

Napi::Object identity(Napi::Env env, const Properties& p) {
  const vk::PhysicalDeviceProperties& base = p.all.properties;
  Napi::Object out = Napi::Object::New(env);
  out.Set("name", std::string(base.deviceName));
  out.Set("type", base.deviceType);
  out.Set("apiVersion", base.apiVersion);
  out.Set("driver", std::string(p.v12.driverName) + " " + p.v12.driverInfo);
  out.Set("driverVersion", base.driverVersion);
  out.Set("vendorId", base.vendorID);
  out.Set("deviceId", base.deviceID);
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
  Napi::Array list = Napi::Array::New(c.env);
  uint32_t count = 0;
  if (!c.fn.GetPhysicalDeviceCooperativeMatrixPropertiesKHR) return list;
  if (c.fn.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(c.physical, &count, nullptr) != vk::SUCCESS) return list;
  vk::CooperativeMatrixPropertiesKHR empty{};
  empty.sType = vk::STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
  std::vector<vk::CooperativeMatrixPropertiesKHR> shapes(count, empty);
  if (c.fn.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(c.physical, &count, shapes.data()) < 0) return list;
  for (uint32_t i = 0; i < count; i++) {
    const auto& s = shapes[i];
    Napi::Object shape = Napi::Object::New(c.env);
    const std::pair<const char*, double> values[] = {{"m", s.MSize}, {"n", s.NSize}, {"k", s.KSize}, {"a", s.AType}, {"b", s.BType}, {"c", s.CType}, {"result", s.ResultType}, {"scope", s.scope}};
    for (const auto& value : values) shape.Set(value.first, value.second);
    list.Set(i, shape);
  }
  return list;
}

Napi::Object describe(Context& c, const Properties& p, const Features& f, bool cooperative) {
  Napi::Object out = identity(c.env, p);
  Napi::Object limits = Napi::Object::New(c.env);
  const std::pair<const char*, double> values[] = {
      {"pushConstantBytes", c.limits.maxPushConstantsSize}, {"sharedMemoryBytes", c.limits.maxComputeSharedMemorySize}, {"groupInvocations", c.limits.maxComputeWorkGroupInvocations},
      {"bufferBytes", static_cast<double>(c.maxBufferSize)}, {"allocationBytes", static_cast<double>(p.v11.maxMemoryAllocationSize)}, {"allocations", c.limits.maxMemoryAllocationCount},
      {"importAlignment", static_cast<double>(c.importAlignment)}, {"timestampPeriod", c.timestampBits ? c.limits.timestampPeriod : 0}};
  for (const auto& value : values) limits.Set(value.first, value.second);
  Napi::Array counts = Napi::Array::New(c.env, 3);
  for (uint32_t i = 0; i < 3; i++) counts.Set(i, c.limits.maxComputeWorkGroupCount[i]);
  limits.Set("groupCount", counts);
  out.Set("limits", limits);
  Napi::Object features = Napi::Object::New(c.env);
#define X(part, name) features.Set(#name, f.part.name != 0);
  FEATURES(X)
#undef X
  features.Set("signedZeroInfNanPreserveFloat32", p.v12.shaderSignedZeroInfNanPreserveFloat32 != 0);
  features.Set("signedZeroInfNanPreserveFloat64", p.v12.shaderSignedZeroInfNanPreserveFloat64 != 0);
  features.Set("denormPreserveFloat32", p.v12.shaderDenormPreserveFloat32 != 0);
  features.Set("denormPreserveFloat64", p.v12.shaderDenormPreserveFloat64 != 0);
  features.Set("memoryBudget", c.budget);
  features.Set("hostImport", c.importAlignment != 0);
  features.Set("cooperativeMatrix", cooperative);
  out.Set("features", features);
  Napi::Object subgroup = Napi::Object::New(c.env);
  subgroup.Set("size", p.v11.subgroupSize);
  subgroup.Set("min", c.minSubgroup);
  subgroup.Set("max", c.maxSubgroup);
  subgroup.Set("operations", p.v11.subgroupSupportedOperations);
  out.Set("subgroup", subgroup);
  bool unified = false, discrete = false;
  for (uint32_t i = 0; i < c.heaps.memoryHeapCount; i++) discrete |= !(c.heaps.memoryHeaps[i].flags & vk::MEMORY_HEAP_DEVICE_LOCAL_BIT);
  const vk::Flags both = vk::MEMORY_PROPERTY_DEVICE_LOCAL_BIT | vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT;
  for (uint32_t i = 0; i < c.heaps.memoryTypeCount; i++) unified |= (c.heaps.memoryTypes[i].propertyFlags & both) == both;
  out.Set("unified", unified && !discrete);
  out.Set("cooperativeMatrix", cooperative ? cooperativeShapes(c) : Napi::Array::New(c.env));
  return out;
}

bool hasExtension(const std::vector<vk::ExtensionProperties>& extensions, const char* name) {
  for (const auto& e : extensions)
    if (!std::strcmp(e.extensionName, name)) return true;
  return false;
}

// A family with compute and without graphics where there is one.
uint32_t computeFamily(Context& c) {
  uint32_t count = 0;
  c.fn.GetPhysicalDeviceQueueFamilyProperties(c.physical, &count, nullptr);
  std::vector<vk::QueueFamilyProperties> families(count);
  c.fn.GetPhysicalDeviceQueueFamilyProperties(c.physical, &count, families.data());
  uint32_t best = UINT32_MAX;
  for (uint32_t i = 0; i < count; i++) {
    if (!(families[i].queueFlags & vk::QUEUE_COMPUTE_BIT)) continue;
    if (best == UINT32_MAX || ((families[best].queueFlags & vk::QUEUE_GRAPHICS_BIT) && !(families[i].queueFlags & vk::QUEUE_GRAPHICS_BIT))) best = i;
  }
  if (best == UINT32_MAX) throw Failure{"VULKAN_FEATURES", "the device has no compute queue"};
  c.timestampBits = families[best].timestampValidBits;
  return best;
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
  uint32_t count = 0;
  c.check(c.fn.EnumerateDeviceExtensionProperties(c.physical, nullptr, &count, nullptr), "vkEnumerateDeviceExtensionProperties");
  std::vector<vk::ExtensionProperties> available(count);
  c.check(c.fn.EnumerateDeviceExtensionProperties(c.physical, nullptr, &count, available.data()), "vkEnumerateDeviceExtensionProperties");
  const bool hostImport = hasExtension(available, "VK_EXT_external_memory_host");
  const bool cooperative = hasExtension(available, "VK_KHR_cooperative_matrix");
  c.budget = hasExtension(available, "VK_EXT_memory_budget");
  std::vector<const char*> extensions;
  if (hostImport) extensions.push_back("VK_EXT_external_memory_host");
  if (c.budget) extensions.push_back("VK_EXT_memory_budget");
  if (cooperative) extensions.push_back("VK_KHR_cooperative_matrix");

  const Properties properties(c, c.physical, hostImport);
  if (properties.all.properties.apiVersion < vk::API_VERSION_1_3) throw Failure{"VULKAN_TOO_OLD", std::string(properties.all.properties.deviceName) + " offers less than Vulkan 1.3"};
  Features has, wanted;
  c.fn.GetPhysicalDeviceFeatures2(c.physical, &has.all);
  if (!has.v12.timelineSemaphore || !has.v12.bufferDeviceAddress || !has.v13.synchronization2)
    throw Failure{"VULKAN_FEATURES", std::string(properties.all.properties.deviceName) + " lacks timeline semaphores, buffer device addresses or synchronization2"};
#define X(part, name) wanted.part.name = has.part.name;
  FEATURES(X)
#undef X
  vk::PhysicalDeviceCooperativeMatrixFeaturesKHR matrix{vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, nullptr, 1, 0};
  if (cooperative) wanted.v13.pNext = &matrix;

  c.limits = properties.all.properties.limits;
  c.maxBufferSize = properties.v13.maxBufferSize;
  c.importAlignment = hostImport ? properties.host.minImportedHostPointerAlignment : 0;
  c.minSubgroup = properties.v13.minSubgroupSize;
  c.maxSubgroup = properties.v13.maxSubgroupSize;
  c.subgroupControl = has.v13.subgroupSizeControl != 0;
  c.fullSubgroups = has.v13.computeFullSubgroups != 0;
  vk::PhysicalDeviceMemoryProperties2 memory{};
  memory.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  c.fn.GetPhysicalDeviceMemoryProperties2(c.physical, &memory);
  c.heaps = memory.memoryProperties;

  const uint32_t family = computeFamily(c);
  const float priority = 1;
  vk::DeviceQueueCreateInfo queue{vk::STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, family, 1, &priority};
  vk::DeviceCreateInfo info{};
  info.sType = vk::STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &wanted.all;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();
  c.check(c.fn.CreateDevice(c.physical, &info, nullptr, &c.device), "vkCreateDevice");
  resolveDevice(c);
  createDeviceObjects(c, family, options);
  c.loseAfter = options.loseAfter;
  return describe(c, properties, has, cooperative);
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
  budget.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  vk::PhysicalDeviceMemoryProperties2 memory{};
  memory.sType = vk::STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
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

void Context::requireDevice() const {
  if (!device) throw Failure{"DEVICE_NOT_OPEN", "no device is open"};
  if (lost) throw Failure{"DEVICE_LOST", "the device is lost"};
}

void Context::check(vk::Result result, const char* what) {
  if (result >= 0) return;
  const std::string text = std::string(what) + " failed with VkResult " + std::to_string(result);
  switch (result) {
    case vk::ERROR_DEVICE_LOST:
      lost = true;
      throw Failure{"DEVICE_LOST", text};
    case vk::ERROR_OUT_OF_DEVICE_MEMORY:
    case vk::ERROR_TOO_MANY_OBJECTS:
      throw Failure{"OUT_OF_DEVICE_MEMORY", text};
    case vk::ERROR_OUT_OF_HOST_MEMORY:
      throw Failure{"OUT_OF_HOST_MEMORY", text};
    default:
      throw Failure{"VULKAN_ERROR", text};
  }
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
  retired.clear();
  freeBuffers.clear();
  for (auto& b : buffers) {
    if (javascript && b && !b->view.IsEmpty()) napi_detach_arraybuffer(env, b->view.Value());
  }
  buffers.clear();
  for (auto& p : pipelines) {
    if (p) p->release();
  }
  pipelines.clear();
  if (device && fn.DestroyDevice) {
    if (queryPool) fn.DestroyQueryPool(device, queryPool, nullptr);
    if (pipelineCache) fn.DestroyPipelineCache(device, pipelineCache, nullptr);
    if (commandPool) fn.DestroyCommandPool(device, commandPool, nullptr);
    if (timeline) fn.DestroySemaphore(device, timeline, nullptr);
    fn.DestroyDevice(device, nullptr);
  }
  queryPool = nullptr;
  pipelineCache = nullptr;
  commandPool = nullptr;
  timeline = nullptr;
  queue = nullptr;
  device = nullptr;
  physical = nullptr;
  destroyInstance(*this);
  submitted = 0;
  loseAfter = UINT64_MAX;
  lost = false;
}
