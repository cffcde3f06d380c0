#include "tables/ruleset/connection_count.h"

#include <algorithm>
#include <bit>

namespace sluice::tables {

ConnectionCounts::ConnectionCounts(uint32_t capacity)
    : nodes_(std::max<uint32_t>(capacity, 1)),
      lists_(nodes_.size()),
      heads_(std::bit_ceil(nodes_.size()), kNone),
      list_heads_(heads_.size(), kNone) {
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    const uint32_t next = i + 1 < nodes_.size() ? i + 1 : kNone;
    nodes_[i].next = next;
    lists_[i].next = next;
  }
}

uint32_t ConnectionCounts::FindList(uint64_t owner) const {
  uint32_t list = list_heads_[ListSlot(owner)];
  while (list != kNone && lists_[list].owner != owner) list = lists_[list].next;
  return list;
}

uint32_t ConnectionCounts::MakeList(uint64_t owner) {
  // Every list has a node, so there is a free one when there is a free node.
  if (free_node_ == kNone || free_list_ == kNone) return kNone;
  const uint32_t list = free_list_;
  free_list_ = lists_[list].next;
  uint32_t& head = list_heads_[ListSlot(owner)];
  lists_[list] = {.owner = owner, .next = head};
  head = list;
  return list;
}

uint32_t ConnectionCounts::FindNode(uint32_t list, const Connection& connection) const {
  uint32_t node = heads_[SlotOf(list, connection)];
  while (node != kNone && (nodes_[node].list != list ||
                           nodes_[node].connection.fingerprint != connection.fingerprint)) {
    node = nodes_[node].next;
  }
  return node;
}

void ConnectionCounts::MakeNode(uint32_t list, const Connection& connection) {
  if (free_node_ == kNone) return;
  const uint32_t node = free_node_;
  free_node_ = nodes_[node].next;
  uint32_t& head = heads_[SlotOf(list, connection)];
  List& l = lists_[list];
  nodes_[node] = {connection, list, head, l.newest, kNone};
  head = node;
  if (l.newest != kNone) nodes_[l.newest].newer = node;
  l.newest = node;
  ++l.count;
  ++size_;
}

void ConnectionCounts::Remove(uint32_t node) {
  Node& n = nodes_[node];
  const uint32_t list = n.list;
  List& l = lists_[list];
  uint32_t* link = &heads_[SlotOf(list, n.connection)];
  while (*link != node) link = &nodes_[*link].next;
  *link = n.next;
  if (n.older != kNone) nodes_[n.older].newer = n.newer;
  if (n.newer != kNone) {
    nodes_[n.newer].older = n.older;
  } else {
    l.newest = n.older;
  }
  n = {};
  n.next = free_node_;
  free_node_ = node;
  --size_;
  if (--l.count != 0) return;
  uint32_t* list_link = &list_heads_[ListSlot(l.owner)];
  while (*list_link != list) list_link = &lists_[*list_link].next;
  *list_link = l.next;
  l.next = free_list_;
  free_list_ = list;
}

}  // namespace sluice::tables
