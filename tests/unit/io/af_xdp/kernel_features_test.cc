#include "io/af_xdp/kernel_features.h"

#include <gtest/gtest.h>

namespace sluice::io::af_xdp {
namespace {

TEST(KernelVersionTest, Parses) {
  EXPECT_EQ(ParseKernelVersion("6.1.0-13-amd64"), (KernelVersion{6, 1}));
  EXPECT_EQ(ParseKernelVersion("6.18.44"), (KernelVersion{6, 18}));
  EXPECT_EQ(ParseKernelVersion("7.0-rc1"), (KernelVersion{7, 0}));
  EXPECT_EQ(ParseKernelVersion("strange"), KernelVersion{});
  EXPECT_GT(RunningKernel(), (KernelVersion{5, 0}));
}

TEST(KernelVersionTest, MultiBufferSince6_6) {
  EXPECT_FALSE(HasMultiBuffer({6, 5}));
  EXPECT_TRUE(HasMultiBuffer({6, 6}));
  EXPECT_TRUE(HasMultiBuffer({6, 12}));
}

TEST(KernelVersionTest, ZeroCopyOnlyWhereKnownToWork) {
  EXPECT_TRUE(ZeroCopyTrusted("i40e", {6, 1}));
  EXPECT_FALSE(ZeroCopyTrusted("i40e", {5, 10}));
  EXPECT_FALSE(ZeroCopyTrusted("mlx5_core", {6, 1}));
  EXPECT_TRUE(ZeroCopyTrusted("mlx5_core", {6, 12}));
  EXPECT_FALSE(ZeroCopyTrusted("ice", {6, 18}));
  EXPECT_FALSE(ZeroCopyTrusted("veth", {6, 18}));
}

}  // namespace
}  // namespace sluice::io::af_xdp
