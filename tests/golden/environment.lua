do

if mode() ~= "spider" then
    local root, prefix = "/sw/my modules/software/PyTorch/2.7", "/sw/my modules"
    read_site(prefix, root)

    -- the image: the module's own copy, else the one of that name and size in the site's image store
    local sif = ""
    if exists(root .. "/x.sif") then
        sif = root .. "/x.sif"
    elseif (filled(setting("image_store")) and has_size(setting("image_store") .. "/x.sif", 4096)) then
        sif = setting("image_store") .. "/x.sif"
    end
    local stored = "nothing else: the site has no image store"
    if filled(setting("image_store")) then
        stored = setting("image_store") .. "/x.sif (4096 bytes)"
    end
    if not filled(sif) then
        fail("PyTorch/2.7: the image is gone", "  looked for  " .. root .. "/x.sif", "  and for     " .. stored, "hint: module unload PyTorch/2.7; eb --rebuild PyTorch-2.7.eb")
    end

    -- the user's directory for this module: the prefix's own, or one's own where others installed
    local overlays = ""
    if mine(prefix .. "/easysif/prefix.json") then
        overlays = prefix .. "/overlays"
    elseif filled(env("EASYSIF_OVERLAYS")) then
        overlays = env("EASYSIF_OVERLAYS")
    elseif filled(setting("overlays")) then
        overlays = setting("overlays")
    elseif filled(env("HOME")) then
        overlays = env("HOME") .. "/.local/share/easysif/overlays"
    end
    local containerroot = ""
    if (is_absolute(overlays) and bindable(overlays)) then
        containerroot = overlays .. "/PyTorch/2.7"
    end

    -- the overlay: the squashfs if it is whole, else the directory
    if not filled(containerroot) then
        warn("PyTorch/2.7: there is no place for an overlay, packages cannot be added", "  path  " .. overlays, "hint: export EASYSIF_OVERLAYS=/<a directory>")
    end
    if (exists(containerroot .. "/user-software.squashfs") and not valid_squashfs(containerroot .. "/user-software.squashfs")) then
        warn("PyTorch/2.7: user-software.squashfs is damaged and not used", "  file  " .. containerroot .. "/user-software.squashfs", "hint: mv -- \"" .. containerroot .. "/user-software.squashfs\" \"" .. containerroot .. "/user-software.squashfs.damaged\"")
    end
    local packed = ""
    if valid_squashfs(containerroot .. "/user-software.squashfs") then
        packed = containerroot .. "/user-software.squashfs"
    end
    if (filled(containerroot) and not exists(containerroot .. "/user-software.squashfs")) then
        make_directory(containerroot .. "/user-software")
    end
    local user_software = ""
    if filled(containerroot) then
        user_software = containerroot .. "/user-software"
    end

    -- binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has
    bind(root .. "/runscripts", "/runscripts", "")
    if filled(packed) then
        bind(packed, "/user-software", "image-src=/,ro")
    end
    if (not filled(packed) and is_directory(user_software)) then
        bind(user_software, "/user-software", "")
    end
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
    local path = "/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin"
    if (filled(env("APPTAINERENV_PREPEND_PATH")) and filled(env("SINGULARITYENV_PREPEND_PATH")) and not is_same(env("APPTAINERENV_PREPEND_PATH"), env("SINGULARITYENV_PREPEND_PATH"))) then
        path = env("APPTAINERENV_PREPEND_PATH") .. ":" .. env("SINGULARITYENV_PREPEND_PATH") .. ":/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin"
    elseif filled(env("APPTAINERENV_PREPEND_PATH")) then
        path = env("APPTAINERENV_PREPEND_PATH") .. ":/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin"
    elseif filled(env("SINGULARITYENV_PREPEND_PATH")) then
        path = env("SINGULARITYENV_PREPEND_PATH") .. ":/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin"
    end
    inside("PREPEND_PATH", path)
    inside("PYTHONNOUSERSITE", "1")
    inside("VIRTUAL_ENV", "/user-software/venv/x")
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
