// The configuration file: YAML in, a plain struct or every mistake with its position out.
//
// Only the interfaces must be named; all else has a default that suits a container rig and a server
// alike, since Linux already holds addresses, routes and rules. An unknown key is an error (with
// the nearest known one), so that a misspelt key cannot be ignored silently. Nothing is touched
// here: whether an interface exists is found out when the program starts.
//
// Refuses: files over kMaxConfigBytes, more than one YAML document, aliases to a parent (yaml-cpp
// does), interface names that the kernel would refuse, and `lo`.
//
// Thread: any; no state.
#ifndef SLUICE_CONTROL_CONFIG_H_
#define SLUICE_CONTROL_CONFIG_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "tables/service_config.h"

namespace sluice::control {

inline constexpr size_t kMaxConfigBytes = size_t{16} << 20;

enum class Choice : uint8_t { kAuto, kOn, kOff };
enum class XdpMode : uint8_t { kAuto, kNative, kGeneric };

struct InterfaceConfig {
  std::string name;
  XdpMode mode = XdpMode::kAuto;
  Choice zero_copy = Choice::kAuto;
  std::optional<uint32_t> queues;   // none: all that the interface has
  Choice checksum = Choice::kAuto;  // on: recognise and complete partial checksums
  Choice busy_poll = Choice::kAuto;
  bool operator==(const InterfaceConfig&) const = default;
};

struct WorkersConfig {
  std::optional<uint32_t> count;  // none: by queues and CPUs, or as many as `cpus` names
  std::vector<uint32_t> cpus;     // empty: chosen when the workers start
  bool operator==(const WorkersConfig&) const = default;
};

struct ListenAddress {
  IpAddress address;
  uint16_t port = 0;
  bool operator==(const ListenAddress&) const = default;
};
std::string ToString(const ListenAddress& listen);  // 127.0.0.1:9470, [::1]:9470

struct MetricsConfig {
  std::optional<ListenAddress> listen = ListenAddress{Ipv4(127, 0, 0, 1), 9470};  // none: off
  bool operator==(const MetricsConfig&) const = default;
};

// Both ends included.
struct PortRange {
  uint16_t first = 0;
  uint16_t last = 0;
  bool operator==(const PortRange&) const = default;
};

// A tracked connection takes at most 256 bytes, all included (asserted in tables/flow_table.h), so
// that a worker's table is 64 MiB unless the configuration says otherwise.
inline constexpr uint32_t kFlowsPerWorker = 262'144;
inline constexpr uint32_t kFlowBytes = 256;

// Each table's size; what happens at the limit is said by the table.
struct LimitsConfig {
  uint32_t routes4 = 2'000'000;
  uint32_t routes6 = 500'000;
  uint32_t route_results = 65'536;
  uint32_t neighbors = 16'384;             // per worker
  std::optional<uint32_t> neighbor_queue;  // none: the kernel's unres_qlen
  std::optional<uint32_t> frames;          // none: by queues and workers
  std::optional<uint32_t> frame_size;      // 2048 or 4096; none: by the largest MTU
  std::optional<uint32_t> flows;           // all workers together; none: kFlowsPerWorker for each
  uint32_t flows_per_source = 0;           // 0: no limit
  uint32_t fragments = 1024;               // datagrams being reassembled, per worker
  PortRange nat_ports = {49'152, 65'535};  // what translated connections may take
  // Sluice's own sockets, where there are services; each worker's memory for them is had when the first
  // service comes. A TCP connection takes about 900 bytes, a UDP session 400, and frames of the worker's
  // while data waits in them.
  uint32_t connections = 16'384;           // TCP, per worker; a proxied one takes two
  uint32_t udp_sessions = 8'192;           // per worker
  PortRange socket_ports = {16'384, 32'767};  // of connections from here; none of nat_ports
  uint32_t offloads = 65'536;              // entries of the flow tier; a connection has two
  bool operator==(const LimitsConfig&) const = default;
};

// What goes into the kernel before Sluice starts (see linux_setup.h and nft/nft_file.h).
struct LinuxAddress {
  std::string interface;
  IpAddress address;
  uint8_t prefix_length = 0;
  bool operator==(const LinuxAddress&) const = default;
};
struct LinuxRoute {
  IpAddress destination;
  uint8_t prefix_length = 0;
  std::optional<IpAddress> via;
  std::string dev;  // may be empty when `via` is given
  bool operator==(const LinuxRoute&) const = default;
};
struct LinuxConfig {
  std::vector<LinuxAddress> addresses;
  std::vector<LinuxRoute> routes;
  std::string nftables;  // a file for nft (control/nft/nft_file.h), relative to the working
                         // directory; empty: none
  bool operator==(const LinuxConfig&) const = default;
};

// What happens to packets that could meet a rule which Sluice cannot run: the kernel gets them, or
// the ruleset is not taken into use.
enum class UnsupportedRules : uint8_t { kKernel, kRefuse };

// How long an idle connection is remembered, where that differs from the kernel's sysctls. The index
// is that of kTimeouts.
struct TimeoutName {
  std::string_view key;     // in the configuration
  std::string_view sysctl;  // below /proc/sys/net/
};
inline constexpr TimeoutName kTimeouts[] = {
#define SLUICE_TIMEOUT(key, sysctl) {key, sysctl},
#include "control/timeouts.inc"
#undef SLUICE_TIMEOUT
};
inline constexpr size_t kTimeoutCount = sizeof kTimeouts / sizeof kTimeouts[0];

struct TimeoutsConfig {
  std::array<std::optional<Nanos>, kTimeoutCount> values;  // none: the kernel's
  // Of a name in kTimeouts.
  std::optional<Nanos> of(std::string_view key) const;
  bool operator==(const TimeoutsConfig&) const = default;
};

struct Config {
  std::vector<InterfaceConfig> interfaces;  // never empty, names differ
  WorkersConfig workers;
  MetricsConfig metrics;
  LimitsConfig limits;
  TimeoutsConfig timeouts;
  UnsupportedRules unsupported = UnsupportedRules::kKernel;
  Choice early_filter = Choice::kAuto;  // rules in XDP; auto and on: those that can run there
  // Connections and routes carried by XDP: auto: where devices can and it pays; on: at once, and also
  // where it is not known whether the output device can.
  Choice flow_offload = Choice::kAuto;
  tables::ServicesConfig services;
  LinuxConfig linux_setup;  // the key is `linux`, which g++ defines as a macro in GNU mode
  bool operator==(const Config&) const = default;
};

// Why the services cannot run with these limits; empty: they can. Of a file, ParseConfig has asked; a
// reload with other limits than the file's asks again.
std::string ServiceLimitsProblem(const Config& config);

struct ConfigError {
  std::string file;
  uint32_t line = 1;  // from 1
  uint32_t column = 1;
  std::string message;
};
std::string ToString(const ConfigError& error);  // file:line:column: message

struct ConfigResult {
  std::optional<Config> config;     // set exactly when there are no errors
  std::vector<ConfigError> errors;  // in the order of the file
};

ConfigResult ParseConfig(std::string_view text, std::string_view filename);

struct ConfigFileResult {
  std::string unreadable;  // one line that says why the file could not be read; else empty
  ConfigResult result;
};
ConfigFileResult LoadConfig(const std::string& path);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONFIG_H_
