# find_package(dhp) for C++ users: the torch-free core, its headers and the command line.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS dhp_exchange dhp_core dhp_peers EXPORT dhp_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT core)
install(DIRECTORY include/dhp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT core)
install(EXPORT dhp_targets FILE dhp-targets.cmake NAMESPACE dhp::
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/dhp COMPONENT core)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/dhp-config.cmake
  "include(\"\${CMAKE_CURRENT_LIST_DIR}/dhp-targets.cmake\")\n")
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/dhp-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dhp-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/dhp-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/dhp COMPONENT core)

if(SKBUILD)
  # In a wheel the command line stands beside the Python scripts, so that `dhp train` finds dhp-train.
  install(TARGETS dhp RUNTIME DESTINATION ${SKBUILD_SCRIPTS_DIR} COMPONENT python)
  # What `dhp build-ops` compiles: the run-time, and what that needs of the core.
  install(DIRECTORY include src/torch src/exchange DESTINATION sources COMPONENT python
    FILES_MATCHING PATTERN "*.h" PATTERN "*.cpp")
  foreach(source IN LISTS exchange_needs ITEMS base/index.h base/listing.h base/text.h)
    cmake_path(GET source PARENT_PATH room)
    install(FILES src/${source} DESTINATION sources/${room} COMPONENT python)
  endforeach()
else()
  install(TARGETS dhp RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT core)
endif()
