#include "control/netfilter/legacy_tables.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

// linux/netfilter_ipv4/ip_tables.h and ip6_tables.h, which are not C++; the layouts are kernel ABI.
constexpr int kGetInfo = 64;     // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
constexpr int kGetEntries = 65;  // IPT_SO_GET_ENTRIES
constexpr size_t kHooks = 5;     // prerouting, input, forward, output, postrouting
constexpr size_t kInput = 1;
constexpr size_t kOutput = 3;

struct Info {  // struct ipt_getinfo
  char name[32];
  uint32_t valid_hooks;
  uint32_t hook_entry[kHooks];
  uint32_t underflow[kHooks];  // where each hook's policy is
  uint32_t entries;
  uint32_t size;
};

struct Layout {  // of struct ipt_entry and ip6t_entry
  size_t target_offset_at;
};
constexpr Layout kEntry4{88};           // ip (84), nfcache, then two u16
constexpr Layout kEntry6{140};          // ipv6 (136), nfcache
constexpr size_t kHeader = 32 + 4 + 4;  // struct ipt_get_entries: name, size, aligned to 8
constexpr size_t kVerdictAt = 32;       // in struct xt_standard_target, behind xt_entry_target
constexpr int32_t kAccept = -2;         // -NF_ACCEPT - 1

// True when every built-in chain's policy is ACCEPT.
bool AllAccept(int fd, int level, const Info& info, const Layout& layout) {
  std::vector<uint8_t> buffer(kHeader + info.size);
  std::memcpy(buffer.data(), info.name, sizeof info.name);
  std::memcpy(buffer.data() + sizeof info.name, &info.size, sizeof info.size);
  socklen_t length = static_cast<socklen_t>(buffer.size());
  if (getsockopt(fd, level, kGetEntries, buffer.data(), &length) != 0) return false;
  for (size_t hook = 0; hook < kHooks; ++hook) {
    if ((info.valid_hooks & 1u << hook) == 0) continue;
    const size_t entry = kHeader + info.underflow[hook];
    uint16_t target = 0;
    if (entry + layout.target_offset_at + sizeof target > buffer.size()) return false;
    std::memcpy(&target, buffer.data() + entry + layout.target_offset_at, sizeof target);
    int32_t verdict = 0;
    if (entry + target + kVerdictAt + sizeof verdict > buffer.size()) return false;
    std::memcpy(&verdict, buffer.data() + entry + target + kVerdictAt, sizeof verdict);
    if (verdict != kAccept) return false;
  }
  return true;
}

// Why a table counts; empty when it does not.
std::string Cause(int fd, int level, const std::string& table, const Layout& layout, Info& info) {
  info = Info{};
  std::strncpy(info.name, table.c_str(), sizeof info.name - 1);
  socklen_t length = sizeof info;
  info.valid_hooks = ~0u;
  if (fd < 0 || getsockopt(fd, level, kGetInfo, &info, &length) != 0) return "cannot be read";
  const uint32_t at_birth = static_cast<uint32_t>(std::popcount(info.valid_hooks)) + 1;
  if (info.entries > at_birth) return absl::StrCat(info.entries - at_birth, " entries");
  return AllAccept(fd, level, info, layout) ? "" : "a policy other than ACCEPT";
}

}  // namespace

void JudgeLegacyTables(Family family, FirewallPresence& presence) {
  const bool v4 = family == Family::kIpv4;
  std::ifstream names(v4 ? "/proc/thread-self/net/ip_tables_names"
                         : "/proc/thread-self/net/ip6_tables_names");
  std::vector<std::string> tables;
  for (std::string name; std::getline(names, name);) tables.push_back(name);
  if (tables.empty()) return;
  const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  for (const std::string& table : tables) {
    Info info;
    const std::string cause = Cause(fd, v4 ? static_cast<int>(SOL_IP) : static_cast<int>(SOL_IPV6),
                                    table, v4 ? kEntry4 : kEntry6, info);
    if (cause.empty()) continue;
    const uint32_t no_transit = 1u << kInput | 1u << kOutput;
    const bool forward = (info.valid_hooks & ~no_transit) != 0;
    const bool input = (info.valid_hooks & (1u | 1u << kInput)) != 0;  // prerouting too
    (v4 ? presence.forward4 : presence.forward6) |= forward;
    (v4 ? presence.input4 : presence.input6) |= input;
    presence.reasons.push_back(
        absl::StrCat(v4 ? "iptables" : "ip6tables", "-legacy table ", table, ": ", cause));
  }
  if (fd >= 0) close(fd);
}

}  // namespace sluice::control
