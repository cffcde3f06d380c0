#include "control/ruleset/keys.h"

#include <array>

#include "tables/ruleset/load.h"

namespace sluice::control {

uint8_t MetaLength(uint32_t key) {
  using namespace tables;  // NOLINT: the keys
  switch (key) {
    case kMetaLength:
    case kMetaPriority:
    case kMetaMark:
    case kMetaIif:
    case kMetaOif:
    case kMetaSkUid:  // no socket: they do not match
    case kMetaSkGid:
    case kMetaCgroup:
    case kMetaCpu:
    case kMetaRandom:
    case kMetaHour:
      return 4;
    case kMetaIifName:
    case kMetaOifName:
      return 16;
    case kMetaProtocol:
    case kMetaIifType:
    case kMetaOifType:
      return 2;
    case kMetaNfProto:
    case kMetaL4Proto:
    case kMetaPktType:
    case kMetaSecPath:
    case kMetaDay:
      return 1;
    case kMetaTime:
      return 8;
    default:
      return 0;
  }
}

uint8_t CtLength(uint32_t key, nft::TableFamily family) {
  using namespace tables;  // NOLINT: the keys
  switch (key) {
    case kCtState:
    case kCtStatus:
    case kCtMark:
    case kCtExpiration:
    case kCtId:
    case kCtSourceIp:
    case kCtDestinationIp:
      return 4;
    case kCtDirection:
    case kCtL3Protocol:
    case kCtProtocol:
      return 1;
    case kCtSource:
    case kCtDestination:
      return family == nft::TableFamily::kIp ? 4 : 16;
    case kCtProtoSource:
    case kCtProtoDestination:
    case kCtZone:
      return 2;
    case kCtPackets:
    case kCtBytes:
    case kCtAveragePacket:
      return 8;
    case kCtSourceIp6:
    case kCtDestinationIp6:
      return 16;
    default:
      return 0;
  }
}

std::string MetaName(uint32_t key) {
  static constexpr std::array kNames = {
      "length",  "protocol", "priority",  "mark",     "iif",      "oif",        "iifname",
      "oifname", "iiftype",  "oiftype",   "skuid",    "skgid",    "nftrace",    "rtclassid",
      "secmark", "nfproto",  "l4proto",   "ibrname",  "obrname",  "pkttype",    "cpu",
      "iifgroup", "oifgroup", "cgroup",   "random",   "ipsec",    "iifkind",    "oifkind",
      "ibrpvid", "ibrvproto", "time",     "day",      "hour",     "sdif",       "sdifname",
      "broute"};
  return key < kNames.size() ? kNames[key] : "key " + std::to_string(key);
}

std::string CtName(uint32_t key) {
  static constexpr std::array kNames = {
      "state",    "direction", "status",    "mark",   "secmark", "expiration", "helper",
      "l3proto",  "saddr",     "daddr",     "protocol", "proto-src", "proto-dst", "label",
      "packets",  "bytes",     "avgpkt",    "zone",   "event",   "ip saddr",   "ip daddr",
      "ip6 saddr", "ip6 daddr", "id"};
  return key < kNames.size() ? kNames[key] : "key " + std::to_string(key);
}

bool IsStatefulObject(uint32_t type) {
  return type == 1 || type == 2 || type == 4 || type == 5;
}

std::string ObjectName(uint32_t type) {
  static constexpr std::array kNames = {"object",   "counter",    "quota",   "ct helper",
                                        "limit",    "ct count",   "tunnel",  "ct timeout",
                                        "secmark",  "ct expectation", "synproxy"};
  return type < kNames.size() ? kNames[type] : "object " + std::to_string(type);
}

}  // namespace sluice::control
