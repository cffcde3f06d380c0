// nf_tables' netlink messages, as the kernel might send them or never would: followed, compiled, and
// run on a few packets. The input is messages one after the other; each NFT_MSG_NEWGEN ends a
// transaction, and so does the end. The saved ones are what the kernel says when it is asked for all of
// a ruleset: of tests/differential/firewall/shapes, and of every statement.
//
// Invariants: a ruleset that was followed by elements alone judges as one that is compiled anew; a rule
// is found by its name; nothing is read or written where it should not be.
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "control/nft/messages.h"
#include "control/nft/ruleset_editor.h"
#include "support/filter_world.h"
#include "support/fuzz_input.h"

namespace sluice::test {
namespace {

// Each worker's elements take memory ahead; a ruleset of the input's size may have hundreds of sets.
constexpr control::CompilerOptions kOptions{.index_threshold = 4, .max_dynamic_elements = 16};
constexpr size_t kMaxRules = 2000;

const std::vector<Bytes>& Packets() {
  static const std::vector<Bytes> packets = {
      FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 40000, 80, 2),
      FilterWorld::Udp4("192.168.1.77", "8.8.8.8", 5353, 53),
      FilterWorld::Tcp6("fd00::1", "2001:db8::2", 40000, 443),
      FilterWorld::Ethernet().Ipv4("10.0.0.1", "10.0.0.2").IcmpEcho(5, 1).Build(),
      FilterWorld::Ethernet().Ipv4("10.0.0.1", "10.0.0.2").FragmentOffset(64).Protocol(17)
          .Payload(40).Build(),
      FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").HopByHop().Udp(5, 6).Build(),
  };
  return packets;
}

// Without effect, so that the same packets can be judged again.
std::vector<Kind> Judge(FilterWorld& world) {
  std::vector<Kind> kinds;
  world.dry_run = true;
  for (const Bytes& packet : Packets()) {
    for (size_t hook = 0; hook < tables::kHookPointCount; ++hook) {
      kinds.push_back(world.Judge(packet, static_cast<HookPoint>(hook)));
    }
  }
  world.dry_run = false;
  return kinds;
}

class Fuzzed {
 public:
  Fuzzed() { world_.Restart(kOptions); }
  ~Fuzzed() { world_.Adopt(nullptr); }

  void Take(const nlmsghdr& message) {
    if (control::nft::MessageKind(message) == NFT_MSG_NEWGEN) {
      static_cast<void>(control::nft::ParseGeneration(message));
      EndTransaction();
    } else {
      editor_.Apply(model_, message, world_.now);
    }
  }

  void EndTransaction() {
    editor_.EndTransaction();
    if (editor_.stale()) editor_.OnRead();  // as if it had been read again, and were so
    if (!editor_.changed() || Rules() > kMaxRules) return;
    ++model_.generation;
    const nft::RulesetChange change = editor_.TakeChange(model_);
    std::shared_ptr<const tables::Ruleset> next;
    if (!change.structure && world_.ruleset != nullptr) {
      next = world_.compiler->ApplyElements(model_, change.sets, world_.now);
    }
    const bool by_elements = next != nullptr;
    if (!by_elements) next = world_.compiler->Compile(model_, world_.now);
    world_.Adopt(std::move(next));
    const std::vector<Kind> kinds = Judge(world_);
    if (by_elements) {
      FilterWorld anew;
      anew.Restart(kOptions);
      anew.Use(model_);
      Require(Judge(anew) == kinds, "changed elements mean what they mean from the beginning");
    }
    for (uint32_t i = 0; i < world_.ruleset->rule_count(); ++i) {
      const tables::RuleInfo& rule = world_.ruleset->rule(i);
      const tables::ChainInfo& chain = world_.ruleset->chain(rule.chain);
      static_cast<void>(
          world_.ruleset->FindRule(chain.table_family, chain.table, chain.name, rule.handle));
    }
    for (const Bytes& packet : Packets()) {
      for (size_t hook = 0; hook < tables::kHookPointCount; ++hook) {
        world_.Run(packet, static_cast<HookPoint>(hook));
      }
    }
    world_.filter.DrainSetEvents([](const tables::SetEvent&) {});
    world_.filter.DrainLog([](const stages::LogRecord&) {});
  }

 private:
  size_t Rules() const {
    size_t rules = 0;
    for (const nft::Table& table : model_.tables) {
      for (const nft::Chain& chain : table.chains) rules += chain.rules.size();
    }
    return rules;
  }

  FilterWorld world_;
  nft::RulesetEditor editor_;
  nft::Ruleset model_;
};

}  // namespace
}  // namespace sluice::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // As large as a datagram may be, and aligned as one is.
  constexpr size_t kMaxInput = 1 << 16;
  if (size > kMaxInput) return 0;
  std::vector<uint64_t> aligned(size / 8 + 1);
  std::memcpy(aligned.data(), data, size);
  sluice::test::Fuzzed fuzzed;
  auto left = static_cast<uint32_t>(size);
  for (auto* message = reinterpret_cast<const nlmsghdr*>(aligned.data()); NLMSG_OK(message, left);
       message = NLMSG_NEXT(message, left)) {
    fuzzed.Take(*message);
  }
  fuzzed.EndTransaction();
  return 0;
}
