// What is compiled for sluice_test_headers (tests/CMakeLists.txt): nothing but its headers.
