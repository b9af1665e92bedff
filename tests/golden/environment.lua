do

if mode() ~= "spider" then
    local root, prefix = "/sw/my modules/software/PyTorch/2.7", "/sw/my modules"
    read_site(prefix, root)

    -- the image: the module's own copy, else the one of that name and size in the site's image store
    local sif = ""
    if exists(root .. "/x.sif") then
        sif = root .. "/x.sif"
    elseif (filled(setting("image_store")) and has_image(setting("image_store") .. "/x.sif", 4096)) then
        sif = setting("image_store") .. "/x.sif"
    end
    local stored = "nothing else: the site has no image store"
    if filled(setting("image_store")) then
        stored = setting("image_store") .. "/x.sif (4096 bytes, not open to everybody)"
    end
    if not filled(sif) then
        fail("PyTorch/2.7: the image is gone", "  looked for  " .. root .. "/x.sif", "  and for     " .. stored, "hint: easysif image restore PyTorch/2.7 --prefix '/sw/my modules'")
    end

    -- the user's directory for this module: the prefix's own, or one's own where others installed
    local chosen = ""
    if (mine(prefix .. "/easysif/prefix.json") and writable(prefix .. "/easysif/prefix.json")) then
        chosen = prefix .. "/overlays"
    elseif filled(env("EASYSIF_OVERLAYS")) then
        chosen = env("EASYSIF_OVERLAYS")
    elseif mine(prefix .. "/easysif/prefix.json") then
        chosen = prefix .. "/overlays"
    elseif filled(setting("overlays")) then
        chosen = setting("overlays")
    end
    local in_home = ""
    if (not filled(chosen) and filled(env("HOME"))) then
        in_home = env("HOME") .. "/.local/share/easysif/overlays"
    end
    local overlays = chosen
    if filled(in_home) then
        overlays = in_home
    end
    local containerroot = ""
    if (is_absolute(overlays) and bindable(overlays)) then
        containerroot = overlays .. "/PyTorch/2.7"
    end

    -- the overlay: the squashfs if it is whole and can be mounted, else the directory
    if not filled(containerroot) then
        warn("PyTorch/2.7: there is no place for an overlay, packages cannot be added", "  path  " .. overlays, "hint: export EASYSIF_OVERLAYS=/<a directory>")
    end
    local state = look_at_squashfs(containerroot .. "/user-software.squashfs")
    if is_same(state, "damaged") then
        warn("PyTorch/2.7: user-software.squashfs is damaged and not used", "  file  " .. containerroot .. "/user-software.squashfs", "hint: mv -- \"" .. containerroot .. "/user-software.squashfs\" \"" .. containerroot .. "/user-software.squashfs.damaged\"")
    end
    if (filled(state) and not is_same(state, "whole") and not is_same(state, "damaged")) then
        warn("PyTorch/2.7: user-software.squashfs cannot be mounted by the container runtime here and is not used", "  file        " .. containerroot .. "/user-software.squashfs", "  compressor  " .. state, "hint: unmake-squashfs && make-squashfs && module reload")
    end
    local packed = ""
    if is_same(state, "whole") then
        packed = containerroot .. "/user-software.squashfs"
    end
    local first_use = ""
    if (filled(in_home) and filled(containerroot) and not exists(containerroot)) then
        first_use = "yes"
    end
    local like = ""
    if is_directory(containerroot) then
        like = containerroot
    elseif is_same(overlays, prefix .. "/overlays") then
        like = prefix
    end
    if (filled(containerroot) and not exists(containerroot .. "/user-software.squashfs")) then
        make_directory(containerroot .. "/user-software", like)
    end
    if (filled(first_use) and is_directory(containerroot)) then
        tell("PyTorch/2.7: the packages that you add go into your home directory, and count against its quota", "  directory  " .. containerroot, "hint: to have them elsewhere: export EASYSIF_OVERLAYS=/<a directory> && module reload")
    end
    local user_software = ""
    if filled(containerroot) then
        user_software = containerroot .. "/user-software"
    end

    -- what the overlay was made for
    local made_for = read_word(containerroot .. "/made-for", "python")
    local made_at = read_word(containerroot .. "/made-for", "at")
    local made_with = read_word(containerroot .. "/made-for", "image")
    local has_venv = ""
    if filled(packed) then
        has_venv = "yes"
    elseif exists(containerroot .. "/user-software/venv/x") then
        has_venv = "yes"
    end
    local other_python = ""
    if (filled(has_venv) and filled(made_for) and filled("3.12") and not is_same(made_for, "3.12")) then
        other_python = made_for .. " " .. made_at
    elseif (filled(has_venv) and filled(made_at) and filled("/opt/conda/envs/x/bin/python3") and not is_same(made_at, "/opt/conda/envs/x/bin/python3")) then
        other_python = made_for .. " " .. made_at
    elseif (not filled(packed) and exists(containerroot .. "/user-software/venv/x/pyvenv.cfg") and not exists(containerroot .. "/user-software/venv/x/lib/python3.12") and not exists(containerroot .. "/user-software/venv/x/lib/python3.12t") and not exists(containerroot .. "/user-software/venv/x/lib/pypy3.12")) then
        other_python = "other than 3.12"
    end
    local ways = "easysif overlay rebuild PyTorch/2.7; or, to keep it as it is: rm -- \"" .. containerroot .. "/made-for\""
    if is_same(other_python, "other than 3.12") then
        ways = "easysif overlay rebuild PyTorch/2.7; or, to begin anew: mv -- \"" .. containerroot .. "/user-software\" \"" .. containerroot .. "/user-software.other\""
    end
    if filled(other_python) then
        warn("PyTorch/2.7: your packages are for another Python and are not used", "  made for       Python " .. other_python, "  the image has  Python 3.12 /opt/conda/envs/x/bin/python3", "  directory      " .. containerroot, "hint: " .. ways)
    end
    if (is_loading() and not filled(other_python) and (filled(has_venv) and filled(made_with) and filled("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") and not is_same(made_with, "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))) then
        warn("PyTorch/2.7: your packages were made with another image", "  made with  " .. made_with, "  this one   sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "  directory  " .. containerroot, "hint: easysif overlay rebuild PyTorch/2.7; or, to keep it as it is: rm -- \"" .. containerroot .. "/made-for\"")
    end

    -- beneath it, for reading: the overlay of those who installed the module, where it is another one
    local shared = ""
    if not is_same(overlays, prefix .. "/overlays") then
        shared = prefix .. "/overlays/PyTorch/2.7"
    end
    local shared_state = look_at_squashfs(shared .. "/user-software.squashfs")
    local shared_for = read_word(shared .. "/made-for", "python")
    local shared_packed = ""
    if ((filled(shared) and not (filled(shared_for) and not is_same(shared_for, "3.12"))) and is_same(shared_state, "whole") and readable(shared .. "/user-software.squashfs")) then
        shared_packed = shared .. "/user-software.squashfs"
    end
    local shared_directory = ""
    if ((filled(shared) and not (filled(shared_for) and not is_same(shared_for, "3.12"))) and not filled(shared_packed) and is_directory(shared .. "/user-software") and readable(shared .. "/user-software")) then
        shared_directory = shared .. "/user-software"
    end

    -- binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has
    bind_each("FORCE")
    bind(root .. "/runscripts", "/runscripts", "")
    if filled(packed) then
        bind(packed, "/user-software", "image-src=/,ro")
    end
    if (not filled(packed) and is_directory(user_software)) then
        bind(user_software, "/user-software", "")
    end
    if filled(shared_packed) then
        bind(shared_packed, "/shared-software", "image-src=/,ro")
    end
    if filled(shared_directory) then
        bind(shared_directory, "/shared-software", "ro")
    end
    local layer = look_at_squashfs(root .. "/layer.squashfs")
    if not is_same(layer, "whole") then
        fail("PyTorch/2.7: its layer of Python packages is gone or damaged", "  file  " .. root .. "/layer.squashfs", "hint: module unload PyTorch/2.7; eb --rebuild PyTorch-2.7.eb")
    end
    bind(root .. "/layer.squashfs", "/layer", "image-src=/,ro")
    bind("/data", "/mnt", "ro")
    bind_each("amd-gpu")
    bind_each("")
    if (filled(env("TMPDIR")) and bindable(env("TMPDIR"))) then
        bind(env("TMPDIR"), "", "")
    end
    if filled(setting("ca_certificates")) then
        bind(setting("ca_certificates"), "", "")
    end
    push_binds()

    -- inside the image
    local shared_venv = ""
    if filled(shared_packed .. shared_directory) then
        shared_venv = "/shared-software/venv/x"
    end
    local virtual_env = "/layer/venv/x"
    if not filled(other_python) then
        virtual_env = "/user-software/venv/x"
    elseif filled(shared_venv) then
        virtual_env = shared_venv
    end
    local own_path = ""
    if not filled(other_python) then
        own_path = ":/user-software/venv/x/bin"
    end
    local venvs_path = own_path
    if filled(shared_venv) then
        venvs_path = own_path .. ":/shared-software/venv/x/bin"
    end
    local path = "/runscripts" .. venvs_path .. ":/layer/venv/x/bin:/opt/conda/envs/x/bin"
    if (filled(env("APPTAINERENV_PREPEND_PATH")) and filled(env("SINGULARITYENV_PREPEND_PATH")) and not is_same(env("APPTAINERENV_PREPEND_PATH"), env("SINGULARITYENV_PREPEND_PATH"))) then
        path = env("APPTAINERENV_PREPEND_PATH") .. ":" .. env("SINGULARITYENV_PREPEND_PATH") .. ":/runscripts" .. venvs_path .. ":/layer/venv/x/bin:/opt/conda/envs/x/bin"
    elseif filled(env("APPTAINERENV_PREPEND_PATH")) then
        path = env("APPTAINERENV_PREPEND_PATH") .. ":/runscripts" .. venvs_path .. ":/layer/venv/x/bin:/opt/conda/envs/x/bin"
    elseif filled(env("SINGULARITYENV_PREPEND_PATH")) then
        path = env("SINGULARITYENV_PREPEND_PATH") .. ":/runscripts" .. venvs_path .. ":/layer/venv/x/bin:/opt/conda/envs/x/bin"
    end
    inside("PREPEND_PATH", path)
    inside("PYTHONNOUSERSITE", "1")
    if filled(virtual_env) then
        inside("VIRTUAL_ENV", virtual_env)
    end
    inside("CONDA_PREFIX", "/opt/conda/envs/x")
    inside("CONDA_DEFAULT_ENV", "x")
    if (exists(setting("ca_certificates")) and is_unset("PIP_CERT") and is_unset("APPTAINERENV_PIP_CERT") and is_unset("SINGULARITYENV_PIP_CERT")) then
        inside("PIP_CERT", setting("ca_certificates"))
    end
    if (exists(setting("ca_certificates")) and is_unset("SSL_CERT_FILE") and is_unset("APPTAINERENV_SSL_CERT_FILE") and is_unset("SINGULARITYENV_SSL_CERT_FILE")) then
        inside("SSL_CERT_FILE", setting("ca_certificates"))
    end
    if (exists(setting("ca_certificates")) and is_unset("REQUESTS_CA_BUNDLE") and is_unset("APPTAINERENV_REQUESTS_CA_BUNDLE") and is_unset("SINGULARITYENV_REQUESTS_CA_BUNDLE")) then
        inside("REQUESTS_CA_BUNDLE", setting("ca_certificates"))
    end
    if (exists(setting("ca_certificates")) and is_unset("CURL_CA_BUNDLE") and is_unset("APPTAINERENV_CURL_CA_BUNDLE") and is_unset("SINGULARITYENV_CURL_CA_BUNDLE")) then
        inside("CURL_CA_BUNDLE", setting("ca_certificates"))
    end
    if (is_unset("PIP_CONSTRAINT") and is_unset("APPTAINERENV_PIP_CONSTRAINT") and is_unset("SINGULARITYENV_PIP_CONSTRAINT")) then
        inside("PIP_CONSTRAINT", "/runscripts/lib/constraints.txt /etc/pip/\\$constraint.txt")
    end
    if (not is_unset("PIP_CONSTRAINT") and not filled(env("PIP_CONSTRAINT")) and is_unset("APPTAINERENV_PIP_CONSTRAINT") and is_unset("SINGULARITYENV_PIP_CONSTRAINT")) then
        inside("PIP_CONSTRAINT", "")
    end
    if (is_unset("UV_CONSTRAINT") and is_unset("APPTAINERENV_UV_CONSTRAINT") and is_unset("SINGULARITYENV_UV_CONSTRAINT")) then
        inside("UV_CONSTRAINT", "/runscripts/lib/constraints-new.txt")
    end
    if (not filled(packed) and is_directory(user_software) and is_unset("UV_CACHE_DIR") and is_unset("APPTAINERENV_UV_CACHE_DIR") and is_unset("SINGULARITYENV_UV_CACHE_DIR")) then
        inside("UV_CACHE_DIR", "/user-software/.cache/uv")
    end
    inside_each("")
    inside_each("amd-gpu")
    inside("QUOTES", "\"it's \\$5\"")
    local append_path = needed_path
    if filled(env("APPTAINERENV_APPEND_PATH")) then
        append_path = env("APPTAINERENV_APPEND_PATH") .. ":" .. needed_path
    elseif filled(env("SINGULARITYENV_APPEND_PATH")) then
        append_path = env("SINGULARITYENV_APPEND_PATH") .. ":" .. needed_path
    end
    if filled(needed_path) then
        inside("APPEND_PATH", append_path)
    end
    local ld_library_path = needed_libraries
    if filled(env("APPTAINERENV_LD_LIBRARY_PATH")) then
        ld_library_path = env("APPTAINERENV_LD_LIBRARY_PATH") .. ":" .. needed_libraries
    elseif filled(env("SINGULARITYENV_LD_LIBRARY_PATH")) then
        ld_library_path = env("SINGULARITYENV_LD_LIBRARY_PATH") .. ":" .. needed_libraries
    end
    if filled(needed_libraries) then
        inside("LD_LIBRARY_PATH", ld_library_path)
    end
    inside_each("FORCE")
    push("SINGULARITY_ROCM", "1")
    push("APPTAINER_ROCM", "1")

    -- names of this module alone, and the module of the runtime where the site has one
    if filled(setting("module_dependency")) then
        depend_on(setting("module_dependency"))
    end
    set("SIFPYTORCH", sif)
    set("RUNSCRIPTSPYTORCH", root .. "/runscripts")

    -- names that every environment module sets
    family("easysif_environment")
    push("SIF", sif)
    push("CONTAINERROOT", containerroot)
    push("RUNSCRIPTS", root .. "/runscripts")
    push("USER_SOFTWARE", user_software)
    push("WITH_CONDA", ". /runscripts/init-conda")
    inside("WITH_CONDA", ". /runscripts/init-conda")
    push("WITH_VENV", ". /runscripts/init-venv")
    inside("WITH_VENV", ". /runscripts/init-venv")
    push("WITH_CONDA_VENV", ". /runscripts/init-conda-venv")
    inside("WITH_CONDA_VENV", ". /runscripts/init-conda-venv")

    -- EasyBuild keeps its Python although this module wraps python3
    local eb_python = "/opt/eb/bin/python"
    if filled(env("EB_PYTHON")) then
        eb_python = env("EB_PYTHON")
    end
    push("EB_PYTHON", eb_python)

    finish()
end
end
