// The model in the words of `nft --debug=netlink list ruleset` (libnftnl 1.2.4), which reads the
// same messages by other code: what both print must be the same.
#ifndef SLUICE_TESTS_UNIT_CONTROL_NFT_NFT_TEXT_H_
#define SLUICE_TESTS_UNIT_CONTROL_NFT_NFT_TEXT_H_

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "control/nft/model.h"

namespace sluice::control::nft::test {

inline const char* Name(const std::vector<const char*>& names, uint32_t i) {
  return i < names.size() ? names[i] : "unknown";
}

// Unit 0, 4, ... are NFT_REG_1, 2, ...; the others NFT_REG32_*.
inline int Reg(uint8_t unit) {
  if (unit == kVerdictRegister) return 0;
  return unit % 4 == 0 ? unit / 4 + 1 : unit + 8;
}

inline std::string Hex(const Bytes& data) {
  std::string out;
  for (size_t at = 0; at < data.size(); at += 4) {
    uint32_t word = 0;
    std::memcpy(&word, data.data() + at, std::min<size_t>(4, data.size() - at));
    absl::StrAppend(&out, absl::StrFormat("0x%08x ", word));
  }
  return out;
}

inline std::string Verdict(const VerdictData& v) {
  switch (v.code) {
    case 0:
      return "drop";
    case 1:
      return "accept";
    case -1:
      return "continue";
    case -2:
      return "break";
    case -3:
      return "jump -> " + v.chain;
    case -4:
      return "goto -> " + v.chain;
    case -5:
      return "return";
  }
  return absl::StrCat("verdict ", v.code);
}

std::string Text(const Expr& expr);

struct Printer {
  std::string operator()(const ImmediateExpr& e) const {
    const std::string data = e.dreg == kVerdictRegister ? Verdict(e.verdict) + " " : Hex(e.data);
    return absl::StrCat("immediate reg ", Reg(e.dreg), " ", data);
  }
  std::string operator()(const CmpExpr& e) const {
    return absl::StrCat("cmp ", Name({"eq", "neq", "lt", "lte", "gt", "gte"}, e.op), " reg ",
                        Reg(e.sreg), " ", Hex(e.data));
  }
  std::string operator()(const RangeExpr& e) const {
    return absl::StrCat("range ", Name({"eq", "neq"}, e.op), " reg ", Reg(e.sreg), " ", Hex(e.from),
                        Hex(e.to));
  }
  std::string operator()(const BitwiseExpr& e) const {
    if (e.op == 0) {
      return absl::StrCat("bitwise reg ", Reg(e.dreg), " = ( reg ", Reg(e.sreg), " & ", Hex(e.mask),
                          ") ^ ", Hex(e.xor_value));
    }
    return absl::StrCat("bitwise reg ", Reg(e.dreg), " = ( reg ", Reg(e.sreg),
                        e.op == 1 ? " << " : " >> ", absl::StrFormat("0x%08x ) ", e.shift));
  }
  std::string operator()(const ByteorderExpr& e) const {
    return absl::StrCat("byteorder reg ", Reg(e.dreg), " = ", Name({"ntoh", "hton"}, e.op), "(reg ",
                        Reg(e.sreg), ", ", e.size, ", ", e.length, ") ");
  }
  std::string operator()(const PayloadExpr& e) const {
    const char* base = Name({"link", "network", "transport", "inner"}, e.base);
    if (e.sreg == kNoRegister) {
      return absl::StrCat("payload load ", e.length, "b @ ", base, " header + ", e.offset,
                          " => reg ", Reg(e.dreg), " ");
    }
    return absl::StrCat("payload write reg ", Reg(e.sreg), " => ", e.length, "b @ ", base,
                        " header + ", e.offset, " csum_type ", uint32_t{e.csum_type}, " csum_off ",
                        e.csum_offset, " csum_flags 0x", absl::Hex(e.csum_flags), " ");
  }
  std::string operator()(const ExthdrExpr& e) const {
    const char* op = Name({"ipv6", "tcpopt", "ipv4", "0"}, e.op);
    if (e.op == 3) op = "0";
    if (e.sreg != kNoRegister) {
      return absl::StrCat("exthdr write ", op, " reg ", Reg(e.sreg), " => ", e.length, "b @ ",
                          uint32_t{e.type}, " + ", e.offset, " ");
    }
    if (e.dreg == kNoRegister) return absl::StrCat("exthdr reset ", op, " ", uint32_t{e.type}, " ");
    return absl::StrCat("exthdr load ", op == std::string("0") ? "" : absl::StrCat(op, " "),
                        e.length, "b @ ", uint32_t{e.type}, " + ", e.offset,
                        e.flags != 0 ? " present" : "", " => reg ", Reg(e.dreg), " ");
  }
  std::string operator()(const MetaExpr& e) const {
    const char* key =
        Name({"len",         "protocol",  "priority", "mark",     "iif",         "oif",
              "iifname",     "oifname",   "iiftype",  "oiftype",  "skuid",       "skgid",
              "nftrace",     "rtclassid", "secmark",  "nfproto",  "l4proto",     "bri_iifname",
              "bri_oifname", "pkttype",   "cpu",      "iifgroup", "oifgroup",    "cgroup",
              "prandom",     "secpath",   "iifkind",  "oifkind",  "bri_iifpvid", "bri_iifvproto",
              "time",        "day",       "hour",     "sdif",     "sdifname"},
             e.key);
    return e.sreg != kNoRegister ? absl::StrCat("meta set ", key, " with reg ", Reg(e.sreg), " ")
                                 : absl::StrCat("meta load ", key, " => reg ", Reg(e.dreg), " ");
  }
  std::string operator()(const CtExpr& e) const {
    const char* key =
        Name({"state",     "direction",  "status",  "mark",    "secmark",  "expiration",
              "helper",    "l3protocol", "src",     "dst",     "protocol", "proto_src",
              "proto_dst", "label",      "packets", "bytes",   "avgpkt",   "zone",
              "event",     "src_ip",     "dst_ip",  "src_ip6", "dst_ip6"},
             e.key);
    const std::string direction =
        e.direction ? absl::StrCat(", dir ", Name({"original", "reply"}, *e.direction), " ") : "";
    return e.sreg != kNoRegister
               ? absl::StrCat("ct set ", key, " with reg ", Reg(e.sreg), " ", direction)
               : absl::StrCat("ct load ", key, " => reg ", Reg(e.dreg), " ", direction);
  }
  std::string operator()(const RtExpr& e) const {
    return absl::StrCat("rt load ",
                        Name({"classid", "nexthop4", "nexthop6", "tcpmss", "ipsec"}, e.key),
                        " => reg ", Reg(e.dreg), " ");
  }
  std::string operator()(const FibExpr& e) const {
    const std::vector<const char*> names = {"saddr", "daddr", "mark", "iif", "oif"};
    std::string from;
    for (uint32_t i = 0; i < names.size(); ++i) {
      if ((e.flags & 1u << i) != 0) absl::StrAppend(&from, from.empty() ? "" : ". ", names[i], " ");
    }
    return absl::StrCat("fib ", from, Name({"?", "oif", "oifname", "type"}, e.result),
                        (e.flags & 1u << 5) != 0 ? " present" : "", " => reg ", Reg(e.dreg), " ");
  }
  std::string operator()(const LookupExpr& e) const {
    return absl::StrCat("lookup reg ", Reg(e.sreg), " set ", e.set, " ",
                        e.dreg != kNoRegister ? absl::StrCat("dreg ", Reg(e.dreg), " ") : "",
                        e.inverted ? "0x1 " : "0x0 ");
  }
  std::string operator()(const LimitExpr& e) const {
    const char* unit = e.unit_seconds == 1       ? "second"
                       : e.unit_seconds == 60    ? "minute"
                       : e.unit_seconds == 3600  ? "hour"
                       : e.unit_seconds == 86400 ? "day"
                                                 : "week";
    return absl::StrCat("limit rate ", e.rate, "/", unit, " burst ", e.burst, " type ",
                        e.bytes ? "bytes" : "packets", e.inverted ? " flags 0x1 " : " flags 0x0 ");
  }
  std::string operator()(const CounterExpr& e) const {
    return absl::StrCat("counter pkts ", e.packets, " bytes ", e.bytes, " ");
  }
  std::string operator()(const QuotaExpr& e) const {
    return absl::StrCat("quota bytes ", e.bytes, " consumed ", e.consumed, " flags ",
                        e.inverted ? 1 : 0, " ");
  }
  std::string operator()(const ConnlimitExpr& e) const {
    return absl::StrCat("connlimit count ", e.count, " flags ", e.inverted ? 1 : 0, " ");
  }
  std::string operator()(const LastExpr&) const { return "last never "; }
  std::string operator()(const LogExpr& e) const {
    std::string out = "log ";
    if (!e.prefix.empty()) absl::StrAppend(&out, "prefix ", e.prefix, " ");
    if (e.group) {
      return absl::StrCat(out, "group ", *e.group, " snaplen ", e.snaplen, " qthreshold 5 ");
    }
    absl::StrAppend(&out, "level ", e.level, " ");
    const std::vector<const char*> flags = {"tcpseq", "tcpopt", "ipopt",
                                            "uid",    "nflog",  "macdecode"};
    for (uint32_t i = 0; i < flags.size(); ++i) {
      if ((e.flags & 1u << i) != 0) absl::StrAppend(&out, flags[i], " ");
    }
    return out;
  }
  std::string operator()(const RejectExpr& e) const {
    return absl::StrCat("reject type ", e.type, " code ", uint32_t{e.code}, " ");
  }
  static std::string Optional(const char* name, uint8_t reg) {
    return reg == kNoRegister ? "" : absl::StrCat(name, " reg ", Reg(reg), " ");
  }
  static std::string Flags(uint32_t flags) {
    return flags == 0 ? "" : absl::StrCat("flags 0x", absl::Hex(flags), " ");
  }
  std::string operator()(const NatExpr& e) const {
    return absl::StrCat("nat ", e.destination ? "dnat " : "snat ", e.family == 2 ? "ip " : "ip6 ",
                        Optional("addr_min", e.addr_min), Optional("addr_max", e.addr_max),
                        Optional("proto_min", e.proto_min), Optional("proto_max", e.proto_max),
                        Flags(e.flags));
  }
  std::string operator()(const MasqExpr& e) const {
    return absl::StrCat("masq ", Optional("proto_min", e.proto_min),
                        Optional("proto_max", e.proto_max), Flags(e.flags));
  }
  std::string operator()(const RedirExpr& e) const {
    return absl::StrCat("redir ", Optional("proto_min", e.proto_min),
                        Optional("proto_max", e.proto_max), Flags(e.flags));
  }
  std::string operator()(const NumgenExpr& e) const {
    return absl::StrCat("numgen reg ", Reg(e.dreg), " = ", Name({"inc", "random"}, e.type), " mod ",
                        e.modulus, " ",
                        e.offset != 0 ? absl::StrCat("offset ", e.offset, " ") : "");
  }
  std::string operator()(const HashExpr& e) const {
    const std::string of = e.type == 0 ? absl::StrCat("jhash(reg ", Reg(e.sreg), ", ", e.length,
                                                      ", 0x", absl::Hex(e.seed), ")")
                                       : "symhash()";
    return absl::StrCat("hash reg ", Reg(e.dreg), " = ", of, " % mod ", e.modulus, " ");
  }
  std::string operator()(const NotrackExpr&) const { return "notrack "; }
  std::string operator()(const ObjrefExpr& e) const {
    if (!e.set.empty()) return absl::StrCat("objref sreg ", Reg(e.sreg), " set ", e.set, " ");
    return absl::StrCat("objref type ", e.type, " name ", e.name, " ");
  }
  std::string operator()(const UnsupportedExpr& e) const { return e.name + " "; }
  std::string operator()(const std::shared_ptr<const DynsetExpr>& e) const {
    std::string out = absl::StrCat(
        "dynset ", Name({"add", "update", "delete"}, e->op), " reg_key ", Reg(e->sreg_key), " set ",
        e->set, " ", Optional("data", e->sreg_data), "timeout ", e->timeout_ms.value_or(0), "ms ");
    for (const Expr& inner : e->exprs) absl::StrAppend(&out, "expr ", Text(inner), " ");
    return out;
  }
};

inline std::string Text(const Expr& expr) {
  return absl::StrCat("[ ", std::visit(Printer{}, expr), "]");
}

inline std::string HexWords(const Bytes& data) {
  std::string out;
  for (size_t at = 0; at < data.size(); at += 4) {
    uint32_t word = 0;
    std::memcpy(&word, data.data() + at, std::min<size_t>(4, data.size() - at));
    absl::StrAppend(&out, absl::StrFormat("%08x ", word));
  }
  return out;
}

inline std::string Text(const SetElement& e) {
  std::string out = absl::StrCat("element ", HexWords(e.key));
  if (e.key_end) absl::StrAppend(&out, "- ", HexWords(*e.key_end));
  absl::StrAppend(&out, ": ", HexWords(e.data));
  if (!(e.verdict == VerdictData{})) absl::StrAppend(&out, Verdict(e.verdict), " ");
  if (!e.object.empty()) absl::StrAppend(&out, e.object, " ");
  absl::StrAppend(&out, e.interval_end ? "interval_end " : "", e.catchall ? "catchall " : "");
  if (e.timeout_ms != 0) absl::StrAppend(&out, "timeout ", e.timeout_ms, " ");
  for (const Expr& expr : e.exprs) absl::StrAppend(&out, Text(expr), " ");
  return out;
}

// All of it, for comparing two: one thing a line.
inline std::vector<std::string> Lines(const Ruleset& ruleset) {
  std::vector<std::string> out;
  for (const Table& table : ruleset.tables) {
    const std::string name = absl::StrCat(FamilyName(table.family), " ", table.name);
    out.push_back(absl::StrCat("table ", name, " ", table.handle, table.dormant ? " dormant" : ""));
    for (const Chain& chain : table.chains) {
      out.push_back(absl::StrCat("chain ", name, " ", chain.name, " ", chain.handle,
                                 chain.anonymous ? " anonymous" : ""));
      if (chain.base) {
        const BaseChain& b = *chain.base;
        out.push_back(absl::StrCat("  ", b.type, " hook ", b.hook, " priority ", b.priority,
                                   " policy ", b.policy));
        for (const std::string& device : b.devices) out.push_back("  device " + device);
      }
      for (const Rule& rule : chain.rules) {
        out.push_back(absl::StrCat("  rule ", rule.handle, " ", rule.comment));
        for (const Expr& expr : rule.exprs) out.push_back("    " + Text(expr));
      }
    }
    for (const auto& [key, set] : table.sets) {
      out.push_back(absl::StrCat("set ", name, " ", key, " ", set.handle, " flags ", set.flags,
                                 " key ", set.key_type, "/", set.key_length, " data ",
                                 set.data_type, "/", set.data_length, " object ", set.object_type,
                                 " size ", set.size, " timeout ", set.timeout_ms, " fields ",
                                 HexWords(set.field_lengths)));
      for (const Expr& expr : set.exprs) out.push_back("  template " + Text(expr));
      for (const SetElement& element : set.elements) out.push_back("  " + Text(element));
      // Which of overlapping ranges is the older one matters.
      std::map<uint64_t, std::string> by_age;
      for (const SetElement& element : set.elements) {
        if (element.key_end) by_age[element.order] = HexWords(element.key);
      }
      for (const auto& [order, element] : by_age) out.push_back("  then " + element);
    }
    for (const Object& object : table.objects) {
      out.push_back(absl::StrCat("object ", name, " ", object.type, " ", object.name, " ",
                                 object.handle, " ", Text(object.value)));
    }
  }
  return out;
}

// Empty when both are the same; else the lines from the first difference on, some of each.
inline std::string Difference(const std::vector<std::string>& ours,
                              const std::vector<std::string>& theirs) {
  if (ours == theirs) return "";
  size_t first = 0;
  while (first < ours.size() && first < theirs.size() && ours[first] == theirs[first]) ++first;
  std::string out;
  for (size_t i = first < 3 ? 0 : first - 3; i < first; ++i) absl::StrAppend(&out, "\n  ", ours[i]);
  for (size_t i = first; i < std::min(first + 12, ours.size()); ++i) {
    absl::StrAppend(&out, "\n- ", ours[i]);
  }
  for (size_t i = first; i < std::min(first + 12, theirs.size()); ++i) {
    absl::StrAppend(&out, "\n+ ", theirs[i]);
  }
  return out;
}

}  // namespace sluice::control::nft::test

#endif  // SLUICE_TESTS_UNIT_CONTROL_NFT_NFT_TEXT_H_
