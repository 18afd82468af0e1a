# Installed packages first; a pinned download where they are missing. Where there is no network either, put the archives
# into a folder and pass -DDHP_ARCHIVES=FOLDER.
include(FetchContent)
set(DHP_ARCHIVES "" CACHE PATH "Folder with the archives of dependencies, instead of downloading them")

function(dhp_fetch name url sha256)
  if(DHP_ARCHIVES)
    get_filename_component(file ${url} NAME)
    set(url ${DHP_ARCHIVES}/${name}-${file})
  endif()
  FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${sha256} SYSTEM)
  FetchContent_MakeAvailable(${name})
endfunction()

find_package(nlohmann_json 3.10 QUIET)
if(NOT nlohmann_json_FOUND)
  dhp_fetch(nlohmann_json https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
    d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)
endif()

find_package(CLI11 2.1 QUIET)
if(NOT CLI11_FOUND)
  dhp_fetch(CLI11 https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz
    f2d893a65c3b1324c50d4e682c0cdc021dd0477ae2c048544f39eed6654b699a)
endif()

if(DHP_TESTS)
  find_package(GTest QUIET)
  if(NOT GTest_FOUND)
    set(INSTALL_GTEST OFF)
    dhp_fetch(googletest https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
      8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7)
  endif()
endif()

if(DHP_BENCH)
  find_package(benchmark QUIET)
endif()
