# The version of dhp is pyproject.toml's. `dhp --version` adds the commit where the tree is one of git: every build asks
# for it, and only the one small file that holds it is compiled again after a commit.
if(CMAKE_SCRIPT_MODE_FILE)
  execute_process(COMMAND git -C ${SOURCE} describe --always --tags --dirty --abbrev=12
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE no_git ERROR_QUIET)
  set(text ${VERSION})
  if(no_git EQUAL 0)
    set(text "${text} (${commit})")
  endif()
  set(code "#include \"cli/version.h\"\n\nconst char* dhp::cli::version() { return \"${text}\"; }\n")
  file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "${code}" @ONLY)  # left alone where nothing changed
  return()
endif()

function(dhp_read_version result)
  file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/pyproject.toml line REGEX "^version = \"[0-9.]+\"$")
  string(REGEX MATCH "[0-9.]+" version "${line}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/pyproject.toml)
  set(${result} ${version} PARENT_SCOPE)
endfunction()

function(dhp_version_file target)
  set(file ${PROJECT_BINARY_DIR}/version/version.cpp)
  add_custom_target(dhp_version_file BYPRODUCTS ${file}
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DVERSION=${PROJECT_VERSION} -DOUTPUT=${file}
      -P ${PROJECT_SOURCE_DIR}/cmake/version.cmake
    COMMENT "Looking for the commit")
  target_sources(${target} PRIVATE ${file})
  set_source_files_properties(${file} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  add_dependencies(${target} dhp_version_file)
endfunction()
