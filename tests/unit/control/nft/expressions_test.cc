#include "control/nft/expressions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "control/nft/messages.h"
#include "control/nft/ruleset_editor.h"
#include "unit/control/nft/nft_text.h"

namespace sluice::control::nft {
namespace {

using Buffer = std::vector<uint8_t>;

Buffer Attribute(uint16_t type, const Buffer& content) {
  const nlattr header{static_cast<uint16_t>(sizeof(nlattr) + content.size()), type};
  Buffer out(sizeof header);
  std::memcpy(out.data(), &header, sizeof header);
  out.insert(out.end(), content.begin(), content.end());
  out.resize(NLA_ALIGN(out.size()));
  return out;
}
Buffer U32(uint16_t type, uint32_t value) {
  return Attribute(type, {static_cast<uint8_t>(value >> 24), static_cast<uint8_t>(value >> 16),
                          static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)});
}
Buffer String(uint16_t type, const std::string& text) {
  Buffer content(text.begin(), text.end());
  content.push_back(0);
  return Attribute(type, content);
}
Buffer operator+(Buffer a, const Buffer& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Buffer Value(uint16_t type, const Buffer& bytes) {
  return Attribute(type, Attribute(NFTA_DATA_VALUE, bytes));
}
Buffer Expression(const std::string& name, const Buffer& data) {
  return Attribute(NFTA_LIST_ELEM, String(NFTA_EXPR_NAME, name) + Attribute(NFTA_EXPR_DATA, data));
}
std::string Parsed(const Buffer& expression) {
  return test::Text(ParseExpression(reinterpret_cast<const nlattr*>(expression.data())));
}

const Buffer kBitwise = U32(NFTA_BITWISE_SREG, NFT_REG_1) + U32(NFTA_BITWISE_DREG, NFT_REG32_01) +
                        U32(NFTA_BITWISE_LEN, 4) + U32(NFTA_BITWISE_OP, NFT_BITWISE_BOOL);
const Buffer kMask = Value(NFTA_BITWISE_MASK, {1, 2, 3, 4}) + Value(NFTA_BITWISE_XOR, {0, 0, 0, 0});

TEST(Expressions, AnAttributeThatIsNotKnownMakesItUnsupported) {
  EXPECT_EQ(Parsed(Expression("bitwise", kBitwise + kMask)),
            "[ bitwise reg 9 = ( reg 1 & 0x04030201 ) ^ 0x00000000 ]");
  // NFTA_BITWISE_SREG2 of kernel 6.13.
  EXPECT_EQ(Parsed(Expression("bitwise", kBitwise + kMask + U32(8, NFT_REG_2))), "[ bitwise ]");
  EXPECT_EQ(Parsed(Expression("notrack", U32(1, 5))), "[ notrack ]");
  const Buffer notrack = Expression("notrack", U32(1, 5));
  EXPECT_TRUE(std::holds_alternative<UnsupportedExpr>(
      ParseExpression(reinterpret_cast<const nlattr*>(notrack.data()))));
}

TEST(Expressions, OperationsBeyondTheModelAreUnsupported) {
  // NFT_BITWISE_AND, OR, XOR of kernel 6.13.
  for (uint32_t op = 3; op < 6; ++op) {
    const Buffer e = U32(NFTA_BITWISE_SREG, NFT_REG_1) + U32(NFTA_BITWISE_DREG, NFT_REG_1) +
                     U32(NFTA_BITWISE_LEN, 4) + U32(NFTA_BITWISE_OP, op) +
                     Value(NFTA_BITWISE_DATA, {1, 0, 0, 0});
    EXPECT_EQ(Parsed(Expression("bitwise", e)), "[ bitwise ]") << op;
  }
  EXPECT_EQ(
      Parsed(Expression("lookup", String(NFTA_LOOKUP_SET, "s") + U32(NFTA_LOOKUP_SREG, NFT_REG_1) +
                                      U32(NFTA_LOOKUP_FLAGS, 2))),
      "[ lookup ]");
}

TEST(Expressions, NonsenseIsUnsupported) {
  EXPECT_EQ(Parsed(Expression("cmp", {})), "[ cmp ]");
  EXPECT_EQ(Parsed(Expression("meta", U32(NFTA_META_KEY, 1) + U32(NFTA_META_DREG, 7))), "[ meta ]");
  EXPECT_EQ(Parsed(Expression("meta", U32(NFTA_META_KEY, 1) + U32(NFTA_META_DREG, 24))),
            "[ meta ]");
  EXPECT_EQ(Parsed(Expression("meta", U32(NFTA_META_KEY, 1) + U32(NFTA_META_DREG, 23))),
            "[ meta load protocol => reg 23 ]");
  EXPECT_EQ(Parsed(Expression("payload", U32(NFTA_PAYLOAD_BASE, 1) + U32(NFTA_PAYLOAD_OFFSET, 1) +
                                             U32(NFTA_PAYLOAD_DREG, NFT_REG_1) +
                                             U32(NFTA_PAYLOAD_LEN, 65))),
            "[ payload ]");
  // A verdict where a value belongs, and the other way around.
  const Buffer verdict =
      Attribute(NFTA_IMMEDIATE_DATA,
                Attribute(NFTA_DATA_VERDICT, U32(NFTA_VERDICT_CODE, static_cast<uint32_t>(-3)) +
                                                 String(NFTA_VERDICT_CHAIN, "c")));
  EXPECT_EQ(Parsed(Expression("immediate", U32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT) + verdict)),
            "[ immediate reg 0 jump -> c ]");
  EXPECT_EQ(Parsed(Expression("immediate", U32(NFTA_IMMEDIATE_DREG, NFT_REG_1) + verdict)),
            "[ immediate ]");
  EXPECT_EQ(Parsed(Expression("immediate", U32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT) +
                                               Value(NFTA_IMMEDIATE_DATA, {1}))),
            "[ immediate ]");
  EXPECT_EQ(Parsed(Expression("", {})), "[  ]");
  EXPECT_EQ(Parsed(Expression("something new", U32(1, 2))), "[ something new ]");
}

TEST(Expressions, ExtensionsOfIptablesHaveTheirNames) {
  EXPECT_EQ(
      Parsed(Expression("match", String(NFTA_MATCH_NAME, "statistic") + U32(NFTA_MATCH_REV, 0) +
                                     Attribute(NFTA_MATCH_INFO, Buffer(24)))),
      "[ match statistic ]");
  EXPECT_EQ(Parsed(Expression("target", String(NFTA_TARGET_NAME, "TTL"))), "[ target TTL ]");
}

TEST(Expressions, DynsetsDoNotNest) {
  Buffer inner = Expression("counter", {});
  for (int depth = 0; depth < 1000; ++depth) {
    inner = Expression("dynset", String(NFTA_DYNSET_SET_NAME, "s") + U32(NFTA_DYNSET_OP, 0) +
                                     U32(NFTA_DYNSET_SREG_KEY, NFT_REG_1) +
                                     Attribute(NFTA_DYNSET_EXPRESSIONS, inner));
    if (inner.size() > 60000) break;
  }
  EXPECT_EQ(Parsed(inner), "[ dynset add reg_key 1 set s timeout 0ms expr [ dynset ] ]");
}

// A message of each kind, with all that it may contain.
std::vector<std::pair<uint16_t, Buffer>> SomeMessages() {
  const Buffer exprs = Attribute(
      NFTA_RULE_EXPRESSIONS,
      Expression("bitwise", kBitwise + kMask) +
          Expression("dynset", String(NFTA_DYNSET_SET_NAME, "s") + U32(NFTA_DYNSET_OP, 0) +
                                   U32(NFTA_DYNSET_SREG_KEY, NFT_REG_1) +
                                   Attribute(NFTA_DYNSET_EXPRESSIONS, Expression("counter", {}))) +
          Expression("match", String(NFTA_MATCH_NAME, "x")));
  const Buffer handle = Attribute(NFTA_RULE_HANDLE, {0, 0, 0, 0, 0, 0, 0, 3});
  const Buffer element = Attribute(
      NFTA_LIST_ELEM, Value(NFTA_SET_ELEM_KEY, {1, 2, 3, 4}) +
                          Value(NFTA_SET_ELEM_KEY_END, {1, 2, 3, 9}) + U32(NFTA_SET_ELEM_FLAGS, 1) +
                          Attribute(NFTA_SET_ELEM_EXPIRATION, {0, 0, 0, 0, 0, 0, 1, 0}) +
                          Attribute(NFTA_SET_ELEM_EXPRESSIONS, Expression("counter", {})));
  const Buffer hook =
      Attribute(NFTA_CHAIN_HOOK, U32(NFTA_HOOK_HOOKNUM, 0) + U32(NFTA_HOOK_PRIORITY, 5) +
                                     Attribute(NFTA_HOOK_DEVS, String(1, "lo") + String(2, "eth")));
  return {
      {NFT_MSG_NEWTABLE,
       String(NFTA_TABLE_NAME, "t") + Attribute(NFTA_TABLE_HANDLE, {0, 0, 0, 0, 0, 0, 0, 1})},
      {NFT_MSG_NEWCHAIN, String(NFTA_CHAIN_TABLE, "t") + String(NFTA_CHAIN_NAME, "c") + hook +
                             String(NFTA_CHAIN_TYPE, "filter") + U32(NFTA_CHAIN_POLICY, 0)},
      {NFT_MSG_NEWRULE, String(NFTA_RULE_TABLE, "t") + String(NFTA_RULE_CHAIN, "c") + handle +
                            exprs + Attribute(NFTA_RULE_USERDATA, {0, 3, 'a', 'b', 0})},
      {NFT_MSG_NEWSET,
       String(NFTA_SET_TABLE, "t") + String(NFTA_SET_NAME, "s") + U32(NFTA_SET_KEY_LEN, 4) +
           Attribute(NFTA_SET_DESC,
                     U32(NFTA_SET_DESC_SIZE, 5) +
                         Attribute(NFTA_SET_DESC_CONCAT,
                                   Attribute(NFTA_LIST_ELEM, U32(NFTA_SET_FIELD_LEN, 4))))},
      {NFT_MSG_NEWSETELEM, String(NFTA_SET_ELEM_LIST_TABLE, "t") +
                               String(NFTA_SET_ELEM_LIST_SET, "s") +
                               Attribute(NFTA_SET_ELEM_LIST_ELEMENTS, element + element)},
      {NFT_MSG_NEWOBJ, String(NFTA_OBJ_TABLE, "t") + String(NFTA_OBJ_NAME, "o") +
                           U32(NFTA_OBJ_TYPE, 1) + Attribute(NFTA_OBJ_DATA, {})},
      {NFT_MSG_DELRULE, String(NFTA_RULE_TABLE, "t") + String(NFTA_RULE_CHAIN, "c") + handle},
      {NFT_MSG_DELSETELEM, String(NFTA_SET_ELEM_LIST_TABLE, "t") +
                               String(NFTA_SET_ELEM_LIST_SET, "s") +
                               Attribute(NFTA_SET_ELEM_LIST_ELEMENTS, element)},
      {NFT_MSG_DELSET, String(NFTA_SET_TABLE, "t") + String(NFTA_SET_NAME, "s")},
      {NFT_MSG_DELCHAIN, String(NFTA_CHAIN_TABLE, "t") + String(NFTA_CHAIN_NAME, "c")},
      {NFT_MSG_DELOBJ, String(NFTA_OBJ_TABLE, "t") + String(NFTA_OBJ_NAME, "o")},
      {NFT_MSG_DELTABLE,
       String(NFTA_TABLE_NAME, "t") + Attribute(NFTA_TABLE_HANDLE, {0, 0, 0, 0, 0, 0, 0, 1})},
      {NFT_MSG_NEWGEN, U32(NFTA_GEN_ID, 7)},
  };
}

// The message in memory of just its size, so that a sanitizer sees a read beyond it.
Buffer Message(uint16_t kind, const Buffer& attributes) {
  Buffer out(NLMSG_HDRLEN + sizeof(nfgenmsg));
  const nfgenmsg body{2, 0, 0};
  std::memcpy(out.data() + NLMSG_HDRLEN, &body, sizeof body);
  out = out + attributes;
  const nlmsghdr header{static_cast<uint32_t>(out.size()),
                        static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | kind), 0, 0, 0};
  std::memcpy(out.data(), &header, sizeof header);
  return out;
}

void TakeApart(const nlmsghdr& message, Ruleset& ruleset, RulesetEditor& editor) {
  (void)ParseGeneration(message);
  if (ParseElementsOf(message)) ForEachElement(message, Seconds(1), [](SetElement&&) {});
  if (MessageKind(message) != NFT_MSG_NEWGEN) editor.Apply(ruleset, message, Seconds(1));
}

TEST(Messages, DamagedOnesAreTakenApartSafely) {
  std::mt19937 random(1);
  const auto messages = SomeMessages();
  uint64_t applied = 0;
  for (int round = 0; round < 3000; ++round) {
    Ruleset ruleset;
    RulesetEditor editor;
    for (const auto& [kind, attributes] : messages) {
      Buffer bytes = Message(kind, attributes);
      const bool damaged = random() % 4 == 0;
      if (damaged && random() % 2 == 0) {
        // Cut short, with the header's length telling the truth.
        bytes.resize(sizeof(nlmsghdr) + random() % (bytes.size() - sizeof(nlmsghdr)));
        const auto length = static_cast<uint32_t>(bytes.size());
        std::memcpy(bytes.data(), &length, sizeof length);
        bytes.shrink_to_fit();
      } else if (damaged) {
        for (uint32_t flips = 1 + random() % 8; flips > 0; --flips) {
          const size_t at = NLMSG_HDRLEN + random() % (bytes.size() - NLMSG_HDRLEN);
          bytes[at] ^= static_cast<uint8_t>(1u << random() % 8);
        }
      }
      TakeApart(*reinterpret_cast<const nlmsghdr*>(bytes.data()), ruleset, editor);
    }
    editor.EndTransaction();
    applied += editor.stale() ? 0 : 1;
    (void)editor.TakeChange(ruleset);
  }
  EXPECT_GT(applied, 10u);
  EXPECT_LT(applied, 2990u);
}

TEST(Messages, ASetWithoutAKeyIsNone) {
  const Buffer name = String(NFTA_SET_TABLE, "t") + String(NFTA_SET_NAME, "s");
  const auto parse = [](uint16_t kind, const Buffer& attributes) {
    const Buffer bytes = Message(kind, attributes);
    return ParseSet(*reinterpret_cast<const nlmsghdr*>(bytes.data())).has_value();
  };
  EXPECT_FALSE(parse(NFT_MSG_NEWSET, name));
  EXPECT_FALSE(parse(NFT_MSG_NEWSET, name + U32(NFTA_SET_KEY_LEN, 0)));
  EXPECT_TRUE(parse(NFT_MSG_NEWSET, name + U32(NFTA_SET_KEY_LEN, 1)));
  EXPECT_TRUE(parse(NFT_MSG_NEWSET, name + U32(NFTA_SET_KEY_LEN, 64)));
  EXPECT_FALSE(parse(NFT_MSG_NEWSET, name + U32(NFTA_SET_KEY_LEN, 65)));
  EXPECT_TRUE(parse(NFT_MSG_DELSET, name));
}

TEST(Messages, TimeoutsOfCenturiesAreCut) {
  const Buffer name = String(NFTA_SET_TABLE, "t") + String(NFTA_SET_NAME, "s") +
                      U32(NFTA_SET_KEY_LEN, 4);
  const auto timeout = [&](const Buffer& big_endian) {
    const Buffer bytes =
        Message(NFT_MSG_NEWSET, name + Attribute(NFTA_SET_TIMEOUT, big_endian));
    return ParseSet(*reinterpret_cast<const nlmsghdr*>(bytes.data()))->set.timeout_ms;
  };
  EXPECT_EQ(timeout({0, 0, 0, 0, 0, 0, 0x27, 0x10}), 10'000u);
  EXPECT_EQ(timeout({0, 0, 0x0c, 1, 0, 0, 0, 0}), kLongestTimeoutMs);
  EXPECT_GT((Millis(static_cast<int64_t>(kLongestTimeoutMs)) * 2).count(), 0);
}

}  // namespace
}  // namespace sluice::control::nft
